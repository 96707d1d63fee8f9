"""Image statistics that do not depend on the content: colours, edges and similarity.

A statistic of an image that is not finite is NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor


EDGE = 0.1
"""The smallest difference in luma (in [0, 1]) between neighbouring pixels that counts as an edge.
"""
LEVELS = 8
"""The number of bins for each colour channel in `colour_entropy`."""
THUMBNAIL_PIXELS = 8


def brightness(images: Tensor) -> Tensor:
    """Returns the mean luma (ITU-R BT.601) of each image.

    Args:
        images: Shape (B, 3, H, W), in [0, 1].

    Returns:
        Shape (B,), in [0, 1].
    """
    return _luma(images).mean((1, 2))


def saturation(images: Tensor) -> Tensor:
    """Returns the mean over pixels of (max - min) / max of the channels.

    Args:
        images: Shape (B, 3, H, W), in [0, 1].

    Returns:
        Shape (B,), in [0, 1].
    """
    most, least = images.amax(1), images.amin(1)
    return _of_finite(images, ((most - least) / most.clamp(min=1e-6)).mean((1, 2)))


def edge_density(images: Tensor) -> Tensor:
    """Returns the share of pixels whose luma differs by EDGE or more from the next pixel to the
    right or below.

    Args:
        images: Shape (B, 3, H, W), in [0, 1].

    Returns:
        Shape (B,), in [0, 1].
    """
    luma = _luma(images)
    across = torch.nn.functional.pad(luma.diff(dim=2), (0, 1)).abs()
    down = torch.nn.functional.pad(luma.diff(dim=1), (0, 0, 0, 1)).abs()
    return _of_finite(images, (torch.maximum(across, down) >= EDGE).float().mean((1, 2)))


def colour_entropy(images: Tensor) -> Tensor:
    """Returns the entropy of each image's colour histogram, with LEVELS bins for each channel.

    Args:
        images: Shape (B, 3, H, W), in [0, 1].

    Returns:
        Shape (B,), in bits, between 0 and 9.
    """
    levels = (images.where(images.isfinite(), 0.0) * LEVELS).long().clamp(0, LEVELS - 1)
    colours = (levels * torch.tensor([LEVELS**2, LEVELS, 1]).view(1, 3, 1, 1)).sum(1).flatten(1)
    counts = torch.stack([each.bincount(minlength=LEVELS**3) for each in colours])
    shares = counts / colours.shape[1]
    return _of_finite(images, -torch.xlogy(shares, shares).sum(1) / math.log(2))


def thumbnails(images: Tensor) -> Tensor:
    """Returns features (B, D) of images (B, 3, H, W) in [0, 1]: a flattened 8 x 8 copy of each."""
    return torch.nn.functional.interpolate(
        images, (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), mode="area"
    ).flatten(1)


def diversity(features: Tensor, groups: Tensor) -> Tensor:
    """Returns the mean Euclidean distance between two images of the same group, averaged over the
    groups.

    Args:
        features: Shape (N, D).
        groups: Shape (N,).

    Returns:
        A scalar; NaN if no group has two images.
    """
    each = [torch.pdist(features[groups == group]) for group in groups.unique()]
    means = [distances.mean() for distances in each if len(distances)]
    return torch.stack(means).mean() if means else torch.tensor(torch.nan)


def nearest(features: Tensor) -> Tensor:
    """Returns each image's Euclidean distance to its nearest neighbour.

    Args:
        features: Shape (N, D).

    Returns:
        Shape (N,); infinite if there is no other image.
    """
    apart = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return apart.fill_diagonal_(torch.inf).amin(1)


def _of_finite(images: Tensor, values: Tensor) -> Tensor:
    """Sets the values (B,) of images that are not finite to NaN."""
    return values.where(images.isfinite().all(3).all(2).all(1), torch.nan)


def _luma(images: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(1)
