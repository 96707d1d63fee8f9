"""The size of an image as a JPEG file in kB, which favours detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.rewards._jpeg import Jpeg
from rediffuse.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["JpegIncompressibility"]


@dataclass(frozen=True)
class JpegIncompressibility(Jpeg):
    """DDPO's incompressibility reward: the JPEG size in kB (Black et al. 2023, sec. 5.1)."""

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return self.kilobytes(images)
