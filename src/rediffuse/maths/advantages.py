"""From rewards to advantages. Rewards (B,) and groups (B,) cover the samples of all processes."""

from collections import deque

import torch
from torch import Tensor

EPS = 1e-6  # as in ddpo-pytorch's stat_tracking.py
BATCH_EPS = 1e-8  # as in its train.py, where there are no statistics of prompts


def standardized(rewards: Tensor) -> Tensor:
    """(B,) -> (B,), zero mean and unit variance over the batch. In fp64: equal rewards in fp32 may
    differ from their mean.
    """
    exact = rewards.double()
    return ((exact - exact.mean()) / (exact.std(correction=0) + BATCH_EPS)).to(rewards)


def standardized_by_group(rewards: Tensor, groups: Tensor) -> Tensor:
    """Each group against itself (GRPO, Shao et al. 2024, sec. 4.1). A lone sample gets 0."""
    gap, group, size = _gaps(rewards, groups)
    variance = torch.zeros_like(size).index_add(0, group, gap**2) / size
    return gap / (variance.sqrt()[group] + EPS)


def centered_by_group(rewards: Tensor, groups: Tensor) -> Tensor:
    """Less each group's mean, in the deviation of the whole batch (Flow-GRPO's `global_std`, Liu et
    al. 2025).

    A group in which all samples are nearly as good then teaches nearly nothing. A lone sample gets
    0.
    """
    gap, _, _ = _gaps(rewards, groups)
    return gap / (rewards.std(correction=0) + EPS)


def _gaps(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B,) less their groups' means; (B,) the groups numbered from 0; and each one's size."""
    _, group = groups.unique(return_inverse=True)
    size = torch.bincount(group).to(rewards)
    mean = torch.zeros_like(size).index_add(0, group, rewards) / size
    return rewards - mean[group], group, size


class PromptStatistics:
    """Standardises each reward by its prompt's recent rewards (Black et al. 2023, sec. 4.3 and app.
    D).

    A prompt with fewer than `min_count` rewards in its buffer of `buffer_size` is measured against
    the whole batch instead. The buffers hold only finite numbers: the caller leaves the rest out.
    """

    def __init__(self, buffer_size: int, min_count: int) -> None:
        self.buffer_size = buffer_size
        self.min_count = min_count
        self.buffers: dict[int, deque[float]] = {}

    def standardized(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Adds the rewards (B,) to their groups' buffers, then gives advantages (B,)."""
        advantages = torch.empty_like(rewards)
        for group in groups.unique().tolist():
            mine = groups == group
            buffer = self.buffers.setdefault(group, deque(maxlen=self.buffer_size))
            buffer.extend(rewards[mine].tolist())
            known = rewards if len(buffer) < self.min_count else rewards.new_tensor(list(buffer))
            advantages[mine] = (rewards[mine] - known.mean()) / (known.std(correction=0) + EPS)
        return advantages

    def state(self) -> dict[str, list[float]]:
        return {str(group): list(buffer) for group, buffer in self.buffers.items()}

    def load(self, state: dict[str, list[float]]) -> None:
        self.buffers = {
            int(group): deque(values, maxlen=self.buffer_size) for group, values in state.items()
        }
