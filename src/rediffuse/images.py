"""Conversions between image tensors, PIL images and files. All quantisation of pixels is done
here.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CROSS = 0.06
"""Half the stroke width of the cross over an image that is not finite, as a share of its side."""


def pixels(images: Tensor, *, truncate: bool = False) -> np.ndarray:
    """Converts images (B, 3, H, W) in [0, 1] to pixels (B, H, W, 3), uint8.

    Args:
        images: The images.
        truncate: Whether to drop fractions instead of rounding.

    Raises:
        ValueError: An image is not finite; it would become black.
    """
    if not images.isfinite().all():
        raise ValueError("an image is not finite, so it has no pixels")
    levels = images * 255
    whole = levels.floor() if truncate else levels.round()
    return whole.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def rounded(images: Tensor) -> Tensor:
    """Rounds values in [0, 1], of any shape, to multiples of 1/255, as in an 8-bit image file."""
    return (images * 255).round() / 255


def truncated(images: Tensor) -> Tensor:
    """Truncates values in [0, 1], of any shape, to multiples of 1/255."""
    return (images * 255).floor().clamp(0, 255) / 255


def pictures(images: Tensor) -> list[Image.Image]:
    """Converts images (B, 3, H, W) in [0, 1] to PIL images, rounded to 8 bits."""
    return [Image.fromarray(each) for each in pixels(images)]


def picture(image: Tensor) -> Image.Image:
    """Converts an image (3, H, W) in [0, 1] to a PIL image; one that is not finite becomes a
    cross.
    """
    return pictures(drawable(image[None]))[0]


def drawable(images: Tensor) -> Tensor:
    """Replaces images (B, 3, H, W) that are not finite with a magenta cross on grey."""
    broken = [i for i, image in enumerate(images) if not image.isfinite().all()]
    if not broken:
        return images
    height, width = images.shape[-2:]
    down, across = torch.arange(height).view(-1, 1) / height, torch.arange(width) / width
    on_cross = ((down - across).abs() < CROSS) | ((down + across - 1).abs() < CROSS)
    crossed = torch.where(on_cross, torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1), 0.5)
    return torch.stack(
        [crossed.to(image) if i in broken else image for i, image in enumerate(images)]
    )


def letterboxed(images: Tensor) -> Tensor:
    """Pads images (B, 3, H, W) with black bars to squares (B, 3, S, S), S = max(H, W)."""
    height, width = images.shape[-2:]
    side = max(height, width)
    left, above = (side - width) // 2, (side - height) // 2
    return torch.nn.functional.pad(
        images, (left, side - width - left, above, side - height - above)
    )


def grid(images: Tensor, columns: int) -> Image.Image:
    """Arranges images (columns * rows, 3, H, W), given column by column, in a grid; each is padded
    to a square.
    """
    square = letterboxed(drawable(images))
    rows = len(square) // columns
    ordered = square.view(columns, rows, *square.shape[1:])
    return picture(torch.cat([torch.cat(list(column), 1) for column in ordered], 2))


def encoded(image: Image.Image, jpeg_quality: int | None) -> bytes:
    """Returns the content of a JPEG file of that quality, or of a PNG file if the quality is
    None.
    """
    buffer = io.BytesIO()
    if jpeg_quality is None:
        image.save(buffer, format="PNG")
    else:
        image.save(buffer, format="JPEG", quality=jpeg_quality)
    return buffer.getvalue()


def tensor(image: Image.Image) -> Tensor:
    """Converts a PIL image to a tensor (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255


def read(path: Path) -> Tensor:
    """Reads an image file as a tensor (3, H, W) in [0, 1]."""
    with Image.open(path) as image:
        return tensor(image)
