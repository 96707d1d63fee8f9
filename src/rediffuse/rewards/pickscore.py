"""Which of two images people would pick for a prompt, as PickScore learned it from their
choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rediffuse.config.schema import HubId
from rediffuse.rewards._clip import Clip, ClipReward
from rediffuse.types import Prompt

__all__ = ["PickScore"]


@dataclass(frozen=True)
class PickScore(ClipReward):
    """Kirstain et al. 2023: the cosine of CLIP's features times the model's own scale; about 17 to
    25.

    A difference of d between two images of one prompt means odds of exp(d) to 1.
    """

    clip: HubId = "yuvalkirstain/PickScore_v1"

    def scores(self, clip: Clip, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        scale: Tensor = clip.model.logit_scale.exp()
        return scale * (clip.image_features(images) * clip.text_features(prompts)).sum(-1)
