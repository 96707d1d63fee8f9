"""DDPO-SF: the score-function estimator, one exact update on fresh samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.algorithms._ddpo import DDPO
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError
from rediffuse.maths.objectives import score_function

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DDPOScoreFunction"]


@dataclass(frozen=True)
class DDPOScoreFunction(DDPO):
    """DDPO with the score-function estimator (Black et al. 2023, eq. 4).

    The estimator is valid only for the weights that the samples were drawn with, hence a single
    update in each epoch.
    """

    def check(self, config: Config) -> None:
        """Raises ConfigError if an epoch has more than one update."""
        for key, value in (
            ("updates_per_epoch", config.updates_per_epoch),
            ("algorithm.inner_epochs", self.inner_epochs),
        ):
            if value != 1:
                raise ConfigError(
                    f"{key}: {value} requested, but ddpo_sf makes exactly one update on each"
                    " epoch's samples: after it they are off-policy. Set it to 1, or use"
                    " --algorithm ddpo_is, which corrects for that."
                )

    def surrogate(self, log_prob: Tensor, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        return score_function(log_prob, advantage)
