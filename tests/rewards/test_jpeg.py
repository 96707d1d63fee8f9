import io

import numpy as np
import torch
from PIL import Image

from rediffuse.images import pixels, truncated
from rediffuse.rewards.jpeg_compressibility import JpegCompressibility
from rediffuse.rewards.jpeg_incompressibility import JpegIncompressibility


def test_kilobytes_are_those_of_pils_file_at_quality_95():
    image = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))
    buffer = io.BytesIO()
    Image.fromarray(np.round(image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(
        buffer, "JPEG", quality=95
    )
    assert round(JpegIncompressibility()(image[None], []).item() * 1000) == len(buffer.getvalue())


def test_pixels_are_rounded_not_cut_unless_asked():
    """As in the PyTorch code: 0.6 of a level above n is n + 1."""
    levels = torch.randint(
        0, 255, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0)
    ).double()
    some = torch.rand(levels.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    above, rounded, cut = (
        JpegIncompressibility()(each / 255, [])
        for each in (levels + 0.6 * some, levels + 1.0 * some, levels)
    )
    assert above == rounded != cut
    assert JpegIncompressibility(truncate=True)((levels + 0.6 * some) / 255, []) == cut


def test_the_two_rewards_are_opposite_and_noise_is_larger_than_nothing():
    images = torch.stack([torch.zeros(3, 32, 32), torch.rand(3, 32, 32)])
    up = JpegIncompressibility()(images, [])
    assert torch.equal(up, -JpegCompressibility()(images, []))
    assert up[1] > up[0]


def test_truncated_images_are_those_that_truncating_to_8_bits_gives():
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    every_level = (torch.arange(256).expand(1, 3, 1, 256) / 255).contiguous()
    for each in (images, every_level):
        assert np.array_equal(pixels(truncated(each)), pixels(each, truncate=True))
    assert not np.array_equal(pixels(truncated(images)), pixels(images))
