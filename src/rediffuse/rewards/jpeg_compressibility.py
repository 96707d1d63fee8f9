"""Minus the size of an image as a JPEG file in kB, which favours smooth images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.rewards._jpeg import Jpeg
from rediffuse.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["JpegCompressibility"]


@dataclass(frozen=True)
class JpegCompressibility(Jpeg):
    """DDPO's compressibility reward: minus the JPEG size in kB (Black et al. 2023, sec. 5.1)."""

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return -self.kilobytes(images)
