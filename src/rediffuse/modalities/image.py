"""Images: (B, 3, H, W) in [0, 1], saved as PNG."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rediffuse.images import picture, rounded

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
