"""RWR: reward-weighted regression, the loss of pretraining on one's own samples, weighted by a
softmax of their rewards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.algorithms._rwr import WeightedRegression
from rediffuse.config.schema import Positive
from rediffuse.maths.weights import softmax_weights, softmax_weights_by_group

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RewardWeightedRegression"]


@dataclass(frozen=True)
class RewardWeightedRegression(WeightedRegression):
    """RWR with one softmax over the epoch (Black et al. 2023, sec. 4.2). The defaults are those of
    the paper's code.

    Attributes:
        inverse_temperature: The paper's beta. Rewards are not normalised, so it depends on their
            unit.
        per_prompt: Whether to take the softmax over each prompt's samples, as published for the
            aesthetic task.
    """

    inverse_temperature: Positive = 0.2
    per_prompt: bool = False

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Returns the weights (B,), with mean 1."""
        if self.per_prompt:
            return softmax_weights_by_group(rewards, groups, self.inverse_temperature)
        return softmax_weights(rewards, self.inverse_temperature)
