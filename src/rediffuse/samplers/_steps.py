"""The base of all samplers: each step is a Gaussian, given by a table of three coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rediffuse.config.schema import PositiveInt
from rediffuse.deferred import torch
from rediffuse.errors import ConfigError
from rediffuse.maths.gaussian import Gaussian
from rediffuse.maths.schedules import NoiseSchedule, Steps, clean_and_noise, wide

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Table:
    """The coefficients of a sampler's T steps.

    The mean of the next state is clean_weight · clean + noise_weight · noise, with clean sample and
    noise as the network predicts them.

    Attributes:
        clean_weight: Shape (T,), float64.
        noise_weight: Shape (T,), float64.
        std: The standard deviation, shape (T,), float64; 0 for a deterministic step.
    """

    clean_weight: Tensor
    noise_weight: Tensor
    std: Tensor


@dataclass(frozen=True)
class SamplerOptions:
    """The options of every sampler. A subclass defines `table` and may add options.

    Attributes:
        num_steps: The number of denoising steps.
        num_quiet_steps: How many of the last steps are deterministic and therefore not trained on.
            With leading spacing the last standard deviations are so small that their
            log-probabilities dominate those of all other steps.
    """

    num_steps: PositiveInt = 50
    num_quiet_steps: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.num_quiet_steps >= self.num_steps:
            raise ConfigError(
                f"sampler.num_quiet_steps: {self.num_quiet_steps} of {self.num_steps} steps; at"
                " least one must draw noise."
            )

    def bind(self, schedule: NoiseSchedule) -> GaussianSteps:
        """Returns the sampler for a model's noise schedule.

        Raises:
            ConfigError: The schedule does not support these steps.
        """
        schedule = self.adapted(schedule)
        try:
            steps = schedule.steps(self.num_steps)
        except ValueError as error:
            raise ConfigError(f"sampler.num_steps: {error}") from error
        _refuse_without_signal(schedule, steps)
        draws = torch.arange(self.num_steps) < self.num_steps - self.num_quiet_steps
        return GaussianSteps(schedule, steps, self.table(steps, draws.double()))

    def adapted(self, schedule: NoiseSchedule) -> NoiseSchedule:
        """Returns the schedule with the sampler's options applied; here it is unchanged."""
        return schedule

    def table(self, steps: Steps, draws: Tensor) -> Table:
        """Returns the coefficients of the steps.

        Args:
            steps: Times and noise levels of the steps.
            draws: Shape (T,), float64; 1 for steps that may add noise, 0 for others.
        """
        raise NotImplementedError


class GaussianSteps:
    """A `Sampler` made of a table of coefficients and a noise schedule.

    Attributes:
        times: Shape (T,), the time passed to the network at each step.
        std: Shape (T,), the standard deviation of each step.
        noisy: For each step, whether it adds noise.
    """

    def __init__(self, schedule: NoiseSchedule, steps: Steps, table: Table) -> None:
        self.times, self.std = steps.times, table.std
        self.noisy = [bool(std > 0) for std in table.std]
        self._schedule, self._table, self._level = schedule, table, schedule.level(steps.times)

    def step(self, output: Tensor, state: Tensor, step: Tensor) -> Gaussian:
        """Returns the distribution of the next state.

        Args:
            output: The network's prediction, shape (N, *L).
            state: Shape (N, *L).
            step: Shape (N,), in [0, T).
        """
        step = step.cpu()
        clean, noise = clean_and_noise(
            self._schedule.prediction, output, state, self._level[step].like(state)
        )
        limit = self._schedule.clip_sample_range
        if limit is not None:
            clean = clean.clamp(-limit, limit)
        mean = (
            wide(self._table.clean_weight[step], state) * clean
            + wide(self._table.noise_weight[step], state) * noise
        )
        return Gaussian(mean, self.std[step].to(state, non_blocking=True))


def _refuse_without_signal(schedule: NoiseSchedule, steps: Steps) -> None:
    """Refuses steps from pure noise (alpha = 0) with epsilon-prediction, where the step would
    divide by 0.
    """
    if schedule.prediction == "epsilon" and not (steps.here.alpha > 0).all():
        raise ConfigError(
            f"sampler: the steps begin at time {steps.times[0]}, where this model's scheduler"
            " leaves no signal (rescale_betas_zero_snr). The model predicts the noise (epsilon),"
            " which then carries no information on the image: every sample would be NaN. Use"
            " --sampler.spacing leading, which begins before that time; or, if the model was"
            " trained with v-prediction, add --model.prediction v_prediction."
        )
