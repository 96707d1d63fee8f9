"""DDPO-IS: importance sampling with PPO's clipping, so that one batch of samples serves several updates."""

from dataclasses import dataclass

from rediffuse.algorithms._ddpo import DDPO
from rediffuse.config.schema import Positive
from rediffuse.maths.objectives import clipped_surrogate
from rediffuse.types import Loss, Policy, Transitions

__all__ = ["DDPOImportanceSampling"]


@dataclass(frozen=True)
class DDPOImportanceSampling(DDPO):
    """Black et al. 2023, eq. 5; the defaults are those of ddpo-pytorch.

    clip_range: of the ratio, whose logarithm is a mean over latent elements; hence so small.
    """

    clip_range: Positive = 1e-4

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("clip_fraction", *super().metric_names)

    @property
    def max_ratio_drift(self) -> float:
        return 0.1 * self.clip_range

    def loss(self, policy: Policy, batch: Transitions) -> Loss:
        law = policy.act(batch.state, batch.step, batch.conditioning)
        log_ratio = law.log_prob(batch.next_state) - batch.log_prob
        surrogate = clipped_surrogate(log_ratio, batch.advantage, self.clip_range)
        outside = (log_ratio.detach().exp() - 1).abs() > self.clip_range
        weights = self.step_weights(policy, batch.step).to(surrogate)
        penalty, metrics = self.penalty(law, batch)
        return Loss(
            (weights * surrogate).mean() + penalty.to(surrogate),
            log_ratio.detach(),
            {"clip_fraction": outside.float().mean().item(), **metrics},
        )
