"""Images: (B, 3, H, W) in [0, 1], saved as PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.images import picture, rounded

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Image"]


@dataclass(frozen=True)
class Image:
    """Images (B, 3, H, W) in [0, 1]."""

    name = "image"
    suffix = ".png"

    def preview(self, samples: Tensor) -> Tensor:
        return samples

    def quantized(self, samples: Tensor) -> Tensor:
        return rounded(samples)

    def save(self, sample: Tensor, stem: Path) -> None:
        picture(sample).save(stem.with_suffix(self.suffix))
