"""RWR: reward-weighted regression, the loss of pretraining on one's own samples, weighted by a
softmax of their rewards.
"""

from dataclasses import dataclass

from torch import Tensor

from rediffuse.algorithms._rwr import WeightedRegression
from rediffuse.config.schema import Positive
from rediffuse.maths.weights import softmax_weights, softmax_weights_by_group

__all__ = ["RewardWeightedRegression"]


@dataclass(frozen=True)
class RewardWeightedRegression(WeightedRegression):
    """Black et al. 2023, sec. 4.2, with one global softmax; the defaults are those of the paper's
    code.

    inverse_temperature: the paper's beta. Rewards enter as they are, so it depends on their unit.
    per_prompt: a softmax over each prompt's samples instead, as published for the aesthetic task.
    """

    inverse_temperature: Positive = 0.2
    per_prompt: bool = False

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Weights of mean 1."""
        if self.per_prompt:
            return softmax_weights_by_group(rewards, groups, self.inverse_temperature)
        return softmax_weights(rewards, self.inverse_temperature)
