"""The sizes of images as JPEG files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from PIL import Image
from pydantic import Field

from rediffuse.deferred import torch
from rediffuse.images import encoded, pixels

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Jpeg:
    """The options of rewards that are computed from the size of a JPEG file.

    Attributes:
        quality: The quality of PIL's JPEG encoder; 95 as in DDPO (Black et al. 2023, sec. 5.1).
        truncate: Whether pixels are truncated to 8 bits, as in the authors' TPU code, instead of
            rounded, as in their PyTorch code.
    """

    quality: Annotated[int, Field(ge=1, le=100)] = 95
    truncate: bool = False
    judges = "image"

    def kilobytes(self, images: Tensor) -> Tensor:
        """Returns the sizes (B,) of images (B, 3, H, W) in [0, 1], in kB of 1000 bytes."""
        return jpeg_kilobytes(images, self.quality, truncate=self.truncate)


def jpeg_kilobytes(images: Tensor, quality: int, *, truncate: bool = False) -> Tensor:
    """Returns the JPEG sizes (B,) of images (B, 3, H, W) in [0, 1], in kB of 1000 bytes."""
    files = [encoded(Image.fromarray(each), quality) for each in pixels(images, truncate=truncate)]
    return torch.tensor([len(file) / 1000 for file in files])
