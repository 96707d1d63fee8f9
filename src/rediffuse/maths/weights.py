"""From rewards to the weights of reward-weighted regression. Rewards (B,) and groups (B,) cover the
samples of all processes.
"""

import torch
from torch import Tensor


def softmax_weights(rewards: Tensor, inverse_temperature: float) -> Tensor:
    """(B,) -> (B,), proportional to exp(inverse_temperature * reward), of mean 1 (Black et al.
    2023, sec. 4.2).
    """
    return len(rewards) * torch.softmax(inverse_temperature * rewards, 0)


def softmax_weights_by_group(rewards: Tensor, groups: Tensor, inverse_temperature: float) -> Tensor:
    """The same within each group, so that every group's mean is 1."""
    weights = torch.empty_like(rewards)
    for group in groups.unique():
        weights[groups == group] = softmax_weights(rewards[groups == group], inverse_temperature)
    return weights


def above_percentile(rewards: Tensor, percentile: float) -> Tensor:
    """(B,) bool: not below the percentile, in [0, 100], of all of them, interpolated linearly."""
    return rewards >= torch.quantile(rewards, percentile / 100)


def above_percentile_by_group(rewards: Tensor, groups: Tensor, percentile: float) -> Tensor:
    """The same within each group: the best of each are kept, at least one."""
    kept = torch.empty_like(rewards, dtype=torch.bool)
    for group in groups.unique():
        kept[groups == group] = above_percentile(rewards[groups == group], percentile)
    return kept


def above_percentile_so_far(rewards: Tensor, groups: Tensor, percentile: float) -> Tensor:
    """Groups come one after another, in the order of their numbers, each held against its own
    rewards and those of all before.
    """
    kept = torch.empty_like(rewards, dtype=torch.bool)
    for group in groups.unique():
        kept[groups == group] = above_percentile(rewards[groups <= group], percentile)[
            groups[groups <= group] == group
        ]
    return kept
