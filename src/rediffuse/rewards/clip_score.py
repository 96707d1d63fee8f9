"""How well an image fits its prompt, as CLIP sees it: 100 times the cosine of their features."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rediffuse.rewards._clip import Clip, ClipReward
from rediffuse.types import Prompt

__all__ = ["ClipScore"]


@dataclass(frozen=True)
class ClipScore(ClipReward):
    """Hessel et al. 2021, without its floor at 0 and its factor of 2.5; about 15 to 35 with the
    default model.
    """

    def scores(self, clip: Clip, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return 100 * (clip.image_features(images) * clip.text_features(prompts)).sum(-1)
