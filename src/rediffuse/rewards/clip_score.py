"""CLIPScore, the similarity of an image and its prompt: 100 times the cosine of CLIP's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.rewards._clip import Clip, ClipReward
from rediffuse.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ClipScore"]


@dataclass(frozen=True)
class ClipScore(ClipReward):
    """CLIPScore (Hessel et al. 2021) with a factor of 100 instead of 2.5 and without the floor at
    0. Values are about 15 to 35 with the default model.
    """

    def scores(self, clip: Clip, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return 100 * (clip.image_features(images) * clip.text_features(prompts)).sum(-1)
