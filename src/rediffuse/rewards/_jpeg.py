"""The size of an image as a JPEG file."""

import io
from dataclasses import dataclass
from typing import Annotated

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor


@dataclass(frozen=True)
class Jpeg:
    """quality: of PIL's JPEG encoder, 95 in DDPO's task (Black et al. 2023, sec. 5.1).

    truncate: to 8 bits by dropping the fraction, as the authors' TPU code, instead of rounding, as their PyTorch code.
    """

    quality: Annotated[int, Field(ge=1, le=100)] = 95
    truncate: bool = False

    def kilobytes(self, images: Tensor) -> Tensor:
        return jpeg_kilobytes(images, self.quality, truncate=self.truncate)


def jpeg_kilobytes(images: Tensor, quality: int, *, truncate: bool = False) -> Tensor:
    """images (B, 3, H, W) in [0, 1] -> (B,) kB of 1000 bytes."""
    levels = images * 255
    pixels = (levels.floor() if truncate else levels.round()).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return torch.tensor([_encoded_bytes(Image.fromarray(each), quality) / 1000 for each in pixels])


def _encoded_bytes(image: Image.Image, quality: int) -> int:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.tell()
