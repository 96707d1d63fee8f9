"""An image's reward is minus its size as a JPEG file, in kB: smooth images win."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rediffuse.rewards._jpeg import Jpeg
from rediffuse.types import Prompt

__all__ = ["JpegCompressibility"]


@dataclass(frozen=True)
class JpegCompressibility(Jpeg):
    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return -self.kilobytes(images)
