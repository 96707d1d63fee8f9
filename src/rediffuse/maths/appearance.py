"""What can be told of pictures without knowing what they show: colours, edges, how alike they are.

Of a picture that is not finite nothing can be told: NaN.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE = 0.1
"""The least step of brightness between neighbours, of 1, that counts as an edge."""
LEVELS = 8
"""Of each colour channel, for the entropy."""
THUMBNAIL_PIXELS = 8


def brightness(images: Tensor) -> Tensor:
    """images (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]: mean luma (ITU-R BT.601)."""
    return _luma(images).mean((1, 2))


def saturation(images: Tensor) -> Tensor:
    """images (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]: the mean of each pixel's (max - min) /
    max.
    """
    most, least = images.amax(1), images.amin(1)
    return _of_finite(images, ((most - least) / most.clamp(min=1e-6)).mean((1, 2)))


def edge_density(images: Tensor) -> Tensor:
    """images (B, 3, H, W) in [0, 1] -> (B,) in [0, 1]: the share of pixels where the luma takes a
    step of EDGE or more.
    """
    luma = _luma(images)
    across = F.pad(luma.diff(dim=2), (0, 1)).abs()
    down = F.pad(luma.diff(dim=1), (0, 0, 0, 1)).abs()
    return _of_finite(images, (torch.maximum(across, down) >= EDGE).float().mean((1, 2)))


def colour_entropy(images: Tensor) -> Tensor:
    """images (B, 3, H, W) in [0, 1] -> (B,) in bits, at most 9: of each picture's colours, LEVELS
    to a channel.
    """
    levels = (images.where(images.isfinite(), 0.0) * LEVELS).long().clamp(0, LEVELS - 1)
    colours = (levels * torch.tensor([LEVELS**2, LEVELS, 1]).view(1, 3, 1, 1)).sum(1).flatten(1)
    counts = torch.stack([each.bincount(minlength=LEVELS**3) for each in colours])
    shares = counts / colours.shape[1]
    return _of_finite(images, -torch.xlogy(shares, shares).sum(1) / math.log(2))


def thumbnails(images: Tensor) -> Tensor:
    """images (B, 3, H, W) in [0, 1] -> features (B, D): a small copy of each."""
    return F.interpolate(images, (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), mode="area").flatten(1)


def diversity(features: Tensor, groups: Tensor) -> Tensor:
    """features (N, D), groups (N,) -> scalar: the mean Euclidean distance of two different pictures
    of one group, every group alike; NaN where no group has two.
    """
    each = [torch.pdist(features[groups == group]) for group in groups.unique()]
    means = [distances.mean() for distances in each if len(distances)]
    return torch.stack(means).mean() if means else torch.tensor(torch.nan)


def nearest(features: Tensor) -> Tensor:
    """features (N, D) -> (N,): the Euclidean distance to the nearest other picture, infinite where
    there is none.
    """
    apart = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.fill_diagonal_(torch.inf).amin(1)


def _of_finite(images: Tensor, values: Tensor) -> Tensor:
    """values (B,), NaN for an image that is not finite."""
    return values.where(images.isfinite().all(3).all(2).all(1), torch.nan)


def _luma(images: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(1)
