"""Sample weights and selections for reward-weighted regression, computed from rewards.

Rewards and groups have shape (B,), where B counts the samples of all processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rediffuse.deferred import torch
from rediffuse.maths.advantages import members

if TYPE_CHECKING:
    from torch import Tensor


def softmax_weights(rewards: Tensor, inverse_temperature: float) -> Tensor:
    """Returns weights proportional to exp(inverse_temperature * reward), with mean 1 (Black et al.
    2023, sec. 4.2).

    Args:
        rewards: Shape (B,).
        inverse_temperature: In 1 / unit of the reward.

    Returns:
        Shape (B,).
    """
    return len(rewards) * torch.softmax(inverse_temperature * rewards, 0)


def softmax_weights_by_group(rewards: Tensor, groups: Tensor, inverse_temperature: float) -> Tensor:
    """Applies `softmax_weights` within each group, so that the mean weight of every group is 1."""
    weights = torch.empty_like(rewards)
    for rows in members(groups):
        weights[rows] = softmax_weights(rewards[rows], inverse_temperature)
    return weights


def above_percentile(rewards: Tensor, percentile: float) -> Tensor:
    """Selects the rewards that are not below a percentile of all rewards, interpolated linearly.

    Args:
        rewards: Shape (B,).
        percentile: In [0, 100].

    Returns:
        Shape (B,), bool.
    """
    return rewards >= torch.quantile(rewards, percentile / 100)


def above_percentile_by_group(rewards: Tensor, groups: Tensor, percentile: float) -> Tensor:
    """Applies `above_percentile` within each group; at least one sample of each is selected."""
    kept = torch.empty_like(rewards, dtype=torch.bool)
    for rows in members(groups):
        kept[rows] = above_percentile(rewards[rows], percentile)
    return kept


def above_percentile_so_far(rewards: Tensor, groups: Tensor, percentile: float) -> Tensor:
    """Selects the rewards of each group that are not below a percentile of all rewards so far.

    The groups follow one another in ascending order of their numbers; the percentile of a group is
    taken over its own rewards and those of all earlier groups.

    Args:
        rewards: Shape (B,).
        groups: Shape (B,).
        percentile: In [0, 100].

    Returns:
        Shape (B,), bool.
    """
    kept = torch.empty_like(rewards, dtype=torch.bool)
    for group in groups.unique():
        kept[groups == group] = above_percentile(rewards[groups <= group], percentile)[
            groups[groups <= group] == group
        ]
    return kept
