"""DDPO-IS: importance sampling with PPO's clipping, so that one batch of samples serves several
updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.algorithms._ddpo import DDPO
from rediffuse.config.schema import Positive
from rediffuse.maths.objectives import clipped_surrogate
from rediffuse.types import Metrics

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DDPOImportanceSampling"]


@dataclass(frozen=True)
class DDPOImportanceSampling(DDPO):
    """DDPO with importance sampling (Black et al. 2023, eq. 5). The defaults are those of
    ddpo-pytorch.

    Attributes:
        clip_range: The ratio is clipped to 1 ± this value. It is small because the log-ratio is
            averaged over latent elements.
    """

    clip_range: Positive = 1e-4

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("clip_fraction", *super().metric_names)

    @property
    def max_ratio_drift(self) -> float:
        return 0.1 * self.clip_range

    def objective(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        return clipped_surrogate(log_ratio, advantage, self.clip_range)

    def measured(self, log_ratio: Tensor) -> Metrics:
        outside = (log_ratio.exp() - 1).abs() > self.clip_range
        return {"clip_fraction": outside.float().mean().item()}
