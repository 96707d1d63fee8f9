"""From tensors to pictures and files, as the rewards that look at either need them."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def pixels(images: Tensor, *, truncate: bool = False) -> np.ndarray:
    """images (B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8, rounded, or with the fraction dropped.

    Raises ValueError where an image is not finite: it would become black.
    """
    if not images.isfinite().all():
        raise ValueError("an image is not finite, so it has no pixels")
    levels = images * 255
    whole = levels.floor() if truncate else levels.round()
    return whole.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def truncated(images: Tensor) -> Tensor:
    """images in [0, 1] -> the same in 256 levels, the fraction dropped."""
    return (images * 255).floor().clamp(0, 255) / 255


def pictures(images: Tensor) -> list[Image.Image]:
    """images (B, 3, H, W) in [0, 1], rounded to 8 bits."""
    return [Image.fromarray(each) for each in pixels(images)]


def encoded(image: Image.Image, jpeg_quality: int | None) -> bytes:
    """A JPEG file of that quality; None: a PNG file."""
    buffer = io.BytesIO()
    if jpeg_quality is None:
        image.save(buffer, format="PNG")
    else:
        image.save(buffer, format="JPEG", quality=jpeg_quality)
    return buffer.getvalue()


def tensor(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
