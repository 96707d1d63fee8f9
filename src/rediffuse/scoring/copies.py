"""Copies of images, on which a reward is compared with itself."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from rediffuse.deferred import torch
from rediffuse.images import encoded, pictures, tensor

if TYPE_CHECKING:
    from torch import Tensor

JPEG_QUALITY = 60
"""The JPEG quality of a recompressed copy."""
SEEN = 0.9
"""The share of each side that a cropped copy keeps."""


def recompressed(images: Tensor) -> Tensor:
    """Returns images (B, 3, H, W) in [0, 1] after JPEG compression with quality 60."""
    files = [io.BytesIO(encoded(picture, JPEG_QUALITY)) for picture in pictures(images)]
    return torch.stack([tensor(Image.open(file)) for file in files]).to(images)


def cropped(images: Tensor) -> Tensor:
    """Returns the central 90 % of each side of images (B, 3, H, W), resized to their size."""
    height, width = images.shape[-2:]
    rows, columns = (max(1, round(SEEN * side)) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = images[..., top : top + rows, left : left + columns]
    return torch.nn.functional.interpolate(middle, (height, width), mode="bilinear")


COPIES = {"recompressed": recompressed, "cropped": cropped}
"""By the value of an entry's key `copy`."""
