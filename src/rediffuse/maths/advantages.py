"""Advantages computed from rewards.

Rewards and groups have shape (B,), where B counts the samples of all processes. Equal entries of
`groups` mark samples of the same group.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor


EPS = 1e-6  # as in ddpo-pytorch's stat_tracking.py
BATCH_EPS = 1e-8  # as in its train.py without per-prompt statistics


def standardized(rewards: Tensor) -> Tensor:
    """Standardises rewards over the whole batch to zero mean and unit variance.

    The computation is in float64, because in float32 the mean of equal rewards may differ from
    them.

    Args:
        rewards: Shape (B,).

    Returns:
        The advantages, shape (B,), in the dtype of the rewards.
    """
    exact = rewards.double()
    return ((exact - exact.mean()) / (exact.std(correction=0) + BATCH_EPS)).to(rewards)


def standardized_by_group(rewards: Tensor, groups: Tensor) -> Tensor:
    """Standardises each reward by the mean and standard deviation of its group (GRPO, Shao et al.
    2024, sec. 4.1).

    Args:
        rewards: Shape (B,).
        groups: Shape (B,).

    Returns:
        The advantages, shape (B,); 0 for a sample that is alone in its group.
    """
    gap, group, size = _gaps(rewards, groups)
    variance = torch.zeros_like(size).index_add(0, group, gap**2) / size
    return gap / (variance.sqrt()[group] + EPS)


def centered_by_group(rewards: Tensor, groups: Tensor) -> Tensor:
    """Subtracts each group's mean and divides by the standard deviation of the whole batch
    (Flow-GRPO's `global_std`, Liu et al. 2025).

    A group whose rewards are nearly equal therefore contributes almost no gradient.

    Args:
        rewards: Shape (B,).
        groups: Shape (B,).

    Returns:
        The advantages, shape (B,); 0 for a sample that is alone in its group.
    """
    gap, _, _ = _gaps(rewards, groups)
    return gap / (rewards.std(correction=0) + EPS)


def _gaps(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns rewards minus their group means (B,), group numbers from 0 (B,), and group sizes."""
    _, group = groups.unique(return_inverse=True)
    size = torch.bincount(group).to(rewards)
    mean = torch.zeros_like(size).index_add(0, group, rewards) / size
    return rewards - mean[group], group, size


def members(groups: Tensor) -> list[Tensor]:
    """Returns the positions of each group's samples, in order, by one sort of the groups (B,)."""
    order = groups.argsort(stable=True)
    _, sizes = groups[order].unique_consecutive(return_counts=True)
    return list(order.split(sizes.tolist()))


class PromptStatistics:
    """Standardises each reward by the recent rewards of its prompt (Black et al. 2023, sec. 4.3 and
    app. D).

    As long as a prompt has fewer than `min_count` rewards in its buffer, its rewards are
    standardised over the whole batch. The caller must leave out rewards that are not finite.

    Attributes:
        buffer_size: How many rewards are kept for each prompt; older ones are dropped.
        min_count: How many rewards a prompt needs before its own statistics are used.
        buffers: The recent rewards of each prompt, by the prompt's group number.
    """

    def __init__(self, buffer_size: int, min_count: int) -> None:
        self.buffer_size = buffer_size
        self.min_count = min_count
        self.buffers: dict[int, deque[float]] = {}

    def standardized(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Adds the rewards to the buffers of their groups, then computes the advantages.

        Args:
            rewards: Shape (B,), finite.
            groups: Shape (B,), int64.

        Returns:
            The advantages, shape (B,).
        """
        advantages = torch.empty_like(rewards)
        of_all = rewards.mean(), rewards.std(correction=0) + EPS
        for rows in members(groups):
            mine, group = rewards[rows], int(groups[rows[0]])
            buffer = self.buffers.setdefault(group, deque(maxlen=self.buffer_size))
            buffer.extend(mine.tolist())
            mean, deviation = of_all
            if len(buffer) >= self.min_count:
                known = rewards.new_tensor(list(buffer))
                mean, deviation = known.mean(), known.std(correction=0) + EPS
            advantages[rows] = (mine - mean) / deviation
        return advantages

    def state(self) -> dict[str, list[float]]:
        """Returns the buffers as JSON-compatible values."""
        return {str(group): list(buffer) for group, buffer in self.buffers.items()}

    def load(self, state: dict[str, list[float]]) -> None:
        """Restores the buffers from the result of `state`."""
        self.buffers = {
            int(group): deque(values, maxlen=self.buffer_size) for group, values in state.items()
        }
