"""The size of an image as a JPEG file."""

import io

import torch
from PIL import Image
from torch import Tensor


def jpeg_kilobytes(images: Tensor, quality: int) -> Tensor:
    """images (B, 3, H, W) in [0, 1] -> (B,) kB of 1000 bytes, rounded to 8 bits as ddpo-pytorch's rewards.py."""
    pixels = (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return torch.tensor([_encoded_bytes(Image.fromarray(each), quality) / 1000 for each in pixels])


def _encoded_bytes(image: Image.Image, quality: int) -> int:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.tell()
