"""Conversions between image tensors, PIL images and files. All quantisation of pixels is done
here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from rediffuse.deferred import torch
from rediffuse.errors import ConfigError, quoted

if TYPE_CHECKING:
    from torch import Tensor

CROSS = 0.06
"""Half the stroke width of the cross over an image that is not finite, as a share of its side."""

INPUT_FORMATS = ("PNG", "JPEG", "WEBP")
MOST_INPUT_PIXELS = 2**26
"""The largest input image that is decompressed."""


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


def input_image(value: object, size_pixels: int) -> Tensor:
    """Reads the image of a prompt's input, shape (3, size_pixels, size_pixels) in [0, 1].

    The result is the central square, oriented as the EXIF data says. Transparent pixels become
    white.

    Args:
        value: `{"file": path}` of a PNG, JPEG or WebP file.
        size_pixels: The width and height of the result.

    Raises:
        ConfigError: The file does not exist, is of another format, or has too many pixels.
    """
    file = value.get("file") if isinstance(value, Mapping) else None
    if not isinstance(file, str) or not Path(file).is_file():
        raise ConfigError(
            f"inputs: {quoted(file or value)} is no file on this machine; give"
            ' {"file": "photo.png"}.'
        )
    try:
        with Image.open(file, formats=INPUT_FORMATS) as image:
            if image.width * image.height > MOST_INPUT_PIXELS:
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels, more than {MOST_INPUT_PIXELS:,}"
                )
            upright = ImageOps.exif_transpose(image)
            square = (size_pixels, size_pixels)
            return tensor(ImageOps.fit(_on_white(upright), square, Image.Resampling.BICUBIC))
    except Exception as error:  # Pillow raises many kinds where a file is damaged
        raise ConfigError(
            f"inputs: cannot read {quoted(file)} as a PNG, JPEG or WebP image: {error}"
        ) from error


def _on_white(image: Image.Image) -> Image.Image:
    """Converts to RGB, with white in place of transparency."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8)).convert(
            "RGB"
        )
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
