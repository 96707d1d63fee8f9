"""An image's reward is minus its size as a JPEG file, in kB: smooth images win."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rediffuse.rewards._jpeg import Jpeg
from rediffuse.types import Prompt

__all__ = ["JpegCompressibility"]


@dataclass(frozen=True)
class JpegCompressibility(Jpeg):
    """Minus the size of the JPEG file, in kB (Black et al. 2023, sec. 5.1)."""

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return -self.kilobytes(images)
