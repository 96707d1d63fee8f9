"""The size of an image as a JPEG file."""

from dataclasses import dataclass
from typing import Annotated

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from rediffuse.images import encoded, pixels


@dataclass(frozen=True)
class Jpeg:
    """quality: of PIL's JPEG encoder, 95 in DDPO's task (Black et al. 2023, sec. 5.1).

    truncate: to 8 bits by dropping the fraction, as the authors' TPU code, instead of rounding, as
    their PyTorch code.
    """

    quality: Annotated[int, Field(ge=1, le=100)] = 95
    truncate: bool = False
    judges = "image"

    def kilobytes(self, images: Tensor) -> Tensor:
        """Returns the JPEG sizes (B,), in kB, of images (B, 3, H, W) in [0, 1]."""
        return jpeg_kilobytes(images, self.quality, truncate=self.truncate)


def jpeg_kilobytes(images: Tensor, quality: int, *, truncate: bool = False) -> Tensor:
    """images (B, 3, H, W) in [0, 1] -> (B,) kB of 1000 bytes."""
    files = [encoded(Image.fromarray(each), quality) for each in pixels(images, truncate=truncate)]
    return torch.tensor([len(file) / 1000 for file in files])
