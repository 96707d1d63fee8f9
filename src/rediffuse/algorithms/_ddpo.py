"""What the two estimators of DDPO share: advantages, and which steps are trained how much."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rediffuse.config.schema import Config, Positive, PositiveInt
from rediffuse.errors import ConfigError
from rediffuse.maths import advantages as adv
from rediffuse.maths.gaussian import Gaussian
from rediffuse.types import Loss, Metrics, Passes, Policy, Transitions


@dataclass(frozen=True)
class DDPO:
    """advantage: rewards are standardised against their prompt's recent rewards ("per_prompt",
    published), their own group in the epoch ("group") or the whole epoch ("batch"); or they are
    told from their group's mean in units that are the whole epoch's ("group_mean"), so that prompts
    which always succeed do not count as much as those in doubt.

    buffer_size, min_count: of the per-prompt statistics.
    steps_per_sample: how many of the random steps each pass trains on, chosen anew for every
    sample; None: all.
    equal_steps: weigh each step by the inverse of its sensitivity (mean 1), so that all speak
    equally loudly.
    kl_weight: of the exact KL divergence of each step from the pretrained model's (DPOK, Fan et al.
    2023, sec. 4.3), which like the log-probability is a mean over latent elements: (mean -
    pretrained mean)^2 / (2 std^2). Flow-GRPO's beta.
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
        """Of a loss without a ratio: more than this means that sampling and training disagree."""
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
        log_ratio = log_prob - batch.log_prob
        surrogate = self.surrogate(log_prob, log_ratio, batch.advantage)
        weights = self.step_weights(policy, batch.step).to(surrogate)
        penalty, metrics = self.penalty(distribution, batch)
        value = (weights * surrogate).mean() + penalty.to(surrogate)
        return Loss(value, log_ratio.detach(), {**self.measured(log_ratio.detach()), **metrics})

    def surrogate(self, log_prob: Tensor, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Returns the loss of each row; log_prob: under the policy that learns; all are (N,)."""
        return self.objective(log_ratio, advantage)

    def objective(self, log_ratio: Tensor, advantage: Tensor) -> Tensor:
        """Returns the loss of each row from the ratio of its likelihoods and its advantage; all are
        (N,).
        """
        raise NotImplementedError

    def measured(self, log_ratio: Tensor) -> Metrics:
        """Returns metrics of a batch, from its log-ratios (N,)."""
        return {}

    def step_weights(self, policy: Policy, step: Tensor) -> Tensor:
        """step (N,) on the host -> (N,), with mean 1 over the random steps; or a plain 1."""
        if not self.equal_steps:
            return torch.ones(())
        sensitivity = policy.sensitivity()
        weights = 1 / sensitivity
        weights = weights / weights[sensitivity.isfinite()].mean()
        return weights[step]

    def penalty(self, distribution: Gaussian, batch: Transitions) -> tuple[Tensor, Metrics]:
        """What the divergence from the pretrained model adds to the loss, and the divergence."""
        if batch.reference_mean is None:
            return torch.zeros(()), {}
        divergence = distribution.kl(Gaussian(batch.reference_mean, distribution.std)).mean()
        return self.kl_weight * divergence, {"kl_to_pretrained": divergence.item()}

    def check(self, config: Config) -> None:
        """Any number of updates will do."""

    def state(self) -> dict[str, Any]:
        return {"statistics": self.statistics.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.statistics.load(state["statistics"])
