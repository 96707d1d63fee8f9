"""PickScore, a model of which image people prefer for a prompt, learned from their choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.config.schema import HubId
from rediffuse.rewards._clip import Clip, ClipReward
from rediffuse.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PickScore"]


@dataclass(frozen=True)
class PickScore(ClipReward):
    """PickScore (Kirstain et al. 2023): the cosine of CLIP's features times the model's learned
    scale. Values are about 17 to 25.

    A difference of d between two images of one prompt means that the better one is preferred with
    odds of exp(d) to 1.
    """

    clip: HubId = "yuvalkirstain/PickScore_v1"

    def scores(self, clip: Clip, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        scale: Tensor = clip.model.logit_scale.exp()
        return scale * (clip.image_features(images) * clip.text_features(prompts)).sum(-1)
