import colorsys
import math
from collections import Counter

import pytest
import torch

from rediffuse.maths import appearance


def plain(*colours, size=8):
    """(len(colours), 3, size, size)."""
    return (
        torch.tensor(colours, dtype=torch.float32)
        .view(-1, 3, 1, 1)
        .expand(-1, 3, size, size)
        .clone()
    )


def test_brightness_is_the_luma_of_bt_601():
    images = plain((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0))
    assert appearance.brightness(images).tolist() == pytest.approx([0.299, 0.587, 0.114, 1, 0])


def test_saturation_is_that_of_the_standard_library():
    colours = [(0.9, 0.2, 0.4), (0.5, 0.5, 0.5), (0.1, 0.8, 0.3), (0.0, 0.0, 0.0)]
    theirs = [colorsys.rgb_to_hsv(*colour)[1] for colour in colours]
    assert appearance.saturation(plain(*colours)).tolist() == pytest.approx(theirs, abs=1e-6)


def test_edges_are_counted_at_the_pixel_before_the_step():
    half = plain((0, 0, 0))
    half[..., 4:] = 1
    assert appearance.edge_density(half).item() == pytest.approx(8 / 64)
    assert appearance.edge_density(half.transpose(2, 3)).item() == pytest.approx(8 / 64)
    assert appearance.edge_density(plain((0.3, 0.6, 0.9))).item() == 0
    faint = 0.5 + (half - 0.5) * 0.05
    assert appearance.edge_density(faint).item() == 0


def test_colour_entropy_is_that_of_a_histogram_counted_by_hand():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 16, 16, generator=generator)
    images[1] = images[1].round()
    for image, found in zip(images, appearance.colour_entropy(images).tolist(), strict=True):
        pixels = (image * 8).floor().clamp(max=7).flatten(1).T.tolist()
        shares = [n / 256 for n in Counter(map(tuple, pixels)).values()]
        assert found == pytest.approx(-sum(p * math.log2(p) for p in shares), abs=1e-4)
    assert appearance.colour_entropy(plain((1, 1, 1), (0, 0, 0))).tolist() == [0, 0]


def test_diversity_is_the_mean_distance_of_pairs_group_by_group():
    features = torch.tensor([[0.0, 0], [3, 4], [0, 0], [0, 1], [0, 3], [9, 9]])
    groups = torch.tensor([7, 7, 1, 1, 1, 2])  # distances 5; 1, 3 and 2; none
    assert appearance.diversity(features, groups).item() == pytest.approx((5 + 2) / 2)
    assert appearance.diversity(features, torch.arange(6)).isnan()


def test_nearest_is_the_distance_to_the_closest_other():
    features = torch.tensor([[0.0, 0], [3, 4], [3, 5], [100, 0]])
    assert appearance.nearest(features).tolist() == pytest.approx([5, 1, 1, math.hypot(97, 4)])
    assert appearance.nearest(features[:1]).isinf().all()


def test_equal_pictures_have_no_distance_at_all():
    features = torch.rand(1, 192).expand(5, -1) * 100
    assert appearance.nearest(features).tolist() == [0] * 5


def test_thumbnails_see_layout_and_not_grain():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 8, 8, generator=generator)
    large = image.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.allclose(appearance.thumbnails(large), image.flatten(1))
