"""The base of both DDPO estimators: advantages, the choice of steps and their weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rediffuse.config.schema import Config, Positive, PositiveInt
from rediffuse.deferred import torch
from rediffuse.errors import ConfigError
from rediffuse.maths import advantages as adv
from rediffuse.maths.gaussian import Gaussian
from rediffuse.types import Loss, Metrics, Passes, Policy, Transitions

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DDPO:
    """Options and loss of DDPO (Black et al. 2023); a subclass defines the objective.

    Attributes:
        advantage: How rewards are normalised. "per_prompt" (published) standardises by the recent
            rewards of the prompt, "group" by the prompt's rewards in this epoch, "batch" by all
            rewards of the epoch. "group_mean" subtracts the group's mean and divides by the
            standard deviation of the epoch, so that groups with little variation have small
            advantages.
        advantage_clip: Advantages are clipped to ± this value.
        buffer_size: How many recent rewards of each prompt are kept for "per_prompt".
        min_count: How many rewards a prompt needs before its own statistics are used.
        inner_epochs: How many passes are made over the epoch's samples.
        steps_per_sample: How many random steps of each trajectory a pass trains on, drawn anew for
            every sample and pass; None: all.
        equal_steps: Whether to weight each step by the inverse of its sensitivity (mean 1), so that
            all steps have gradients of similar size.
        kl_weight: The weight of each step's exact KL divergence from the pretrained model (DPOK,
            Fan et al. 2023, sec. 4.3; beta in Flow-GRPO). Like the log-probability it is averaged
            over latent elements: (mean - pretrained mean)^2 / (2 std^2).
        statistics: The recent rewards of each prompt.
    """

    advantage: Literal["per_prompt", "group", "group_mean", "batch"] = "per_prompt"
    advantage_clip: Positive = 5.0
    buffer_size: PositiveInt = 16
    min_count: PositiveInt = 16
    inner_epochs: PositiveInt = 1
    steps_per_sample: PositiveInt | None = None
    equal_steps: bool = False
    kl_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    statistics: adv.PromptStatistics = field(init=False, repr=False, compare=False)

    trains_on = Transitions
    groups = "prompt"

    @property
    def passes(self) -> Passes:
        return Passes(
            self.inner_epochs, self.steps_per_sample, reference="start" if self.kl_weight else None
        )

    @property
    def max_ratio_drift(self) -> float:
        """The bound for a loss without a ratio: a larger drift means that sampling and training
        disagree.
        """
        return 1e-2

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("kl_to_pretrained",) if self.kl_weight else ()

    def __post_init__(self) -> None:
        if self.min_count > self.buffer_size:
            raise ConfigError(
                f"algorithm.min_count: {self.min_count} rewards can never be in a buffer of"
                f" buffer_size {self.buffer_size}."
            )
        object.__setattr__(
            self, "statistics", adv.PromptStatistics(self.buffer_size, self.min_count)
        )

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        if self.advantage == "per_prompt":
            advantages = self.statistics.standardized(rewards, groups)
        elif self.advantage == "group":
            advantages = adv.standardized_by_group(rewards, groups)
        elif self.advantage == "group_mean":
            advantages = adv.centered_by_group(rewards, groups)
        else:
            advantages = adv.standardized(rewards)
        return advantages.clamp(-self.advantage_clip, self.advantage_clip)

    def loss(self, policy: Policy, batch: Transitions) -> Loss:
        distribution = policy.act(batch.state, batch.step, batch.conditioning)
        log_prob = distribution.log_prob(batch.next_state)
        weights = self.step_weights(policy, batch.step)
        loss = self.policy_loss(log_prob, batch.log_prob, batch.advantage, weights)
        penalty, metrics = self.penalty(distribution, batch)
        value = loss.value + penalty.to(loss.value)
        return Loss(value, loss.log_ratio, {**loss.metrics, **metrics})

    def policy_loss(
        self, log_prob: Tensor, sampled_log_prob: Tensor, advantage: Tensor, weights: Tensor
    ) -> Loss:
        log_ratio = log_prob - sampled_log_prob
        surrogate = self.surrogate(log_prob, log_ratio, advantage)
        value = (weights.to(surrogate) * surrogate).mean()
        return Loss(value, log_ratio.detach(), self.measured(log_ratio.detach()))

    @property
    def is_of_scores(self) -> bool:
        """The KL penalty's gradient is none."""
        return not self.kl_weight

    def surrogate(self, log_prob: Tensor, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Returns the loss of each row; all tensors are (N,), `log_prob` is that of the trained
        policy.
        """
        return self.objective(log_ratio, advantage)

    def objective(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Returns the loss of each row from its log-ratio and its advantage; all are (N,)."""
        raise NotImplementedError

    def measured(self, log_ratio: Tensor) -> Metrics:
        """Returns additional metrics of a batch, from its log-ratios (N,)."""
        return {}

    def step_weights(self, policy: Policy, step: Tensor) -> Tensor:
        """Returns the weights of steps (N,), which average 1 over the random steps; without
        `equal_steps` a scalar 1.
        """
        if not self.equal_steps:
            return torch.ones(())
        sensitivity = policy.sensitivity()
        weights = 1 / sensitivity
        weights = weights / weights[sensitivity.isfinite()].mean()
        return weights[step]

    def penalty(self, distribution: Gaussian, batch: Transitions) -> tuple[Tensor, Metrics]:
        """Returns the KL penalty that is added to the loss, and the KL divergence as a metric."""
        if batch.reference_mean is None:
            return torch.zeros(()), {}
        divergence = distribution.kl(Gaussian(batch.reference_mean, distribution.std)).mean()
        return self.kl_weight * divergence, {"kl_to_pretrained": divergence.item()}

    def check(self, config: Config) -> None:
        """Accepts every configuration."""

    def state(self) -> dict[str, Any]:
        return {"statistics": self.statistics.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.statistics.load(state["statistics"])
