"""What all samplers share: a table of three columns makes a Gaussian of each step."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rediffuse.config.schema import PositiveInt
from rediffuse.errors import ConfigError
from rediffuse.maths.gaussian import Gaussian
from rediffuse.maths.schedules import NoiseSchedule, Steps, clean_and_noise, wide


@dataclass(frozen=True)
class Table:
    """A sampler: the mean of a step's next state is clean_weight · clean + noise_weight · noise, of
    what the network predicts.

    Attributes:
        clean_weight: shape (T,), float64.
        noise_weight: shape (T,), float64.
        std: shape (T,), float64; 0 where nothing is drawn.
    """

    clean_weight: Tensor
    noise_weight: Tensor
    std: Tensor


@dataclass(frozen=True)
class SamplerOptions:
    """The options of every sampler; one of the room adds `table`, and options of its own.

    Attributes:
        num_steps: denoising steps of a sample.
        num_quiet_steps: the last steps draw nothing and so are never trained. With leading spacing
            the last standard deviations are so small that their log-probability drowns that of all
            other steps.
    """

    num_steps: PositiveInt = 50
    num_quiet_steps: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.num_quiet_steps >= self.num_steps:
            raise ConfigError(
                f"sampler.num_quiet_steps: {self.num_quiet_steps} of {self.num_steps} steps; one"
                " must draw something."
            )

    def bind(self, schedule: NoiseSchedule) -> "GaussianSteps":
        """The sampler on a model's schedule. Raises ConfigError where the schedule does not have
        such steps.
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
        """The schedule as the sampler's options change it; here they change nothing."""
        return schedule

    def table(self, steps: Steps, draws: Tensor) -> Table:
        """The sampler's columns. draws: shape (T,), 1 where a step may draw noise, else 0."""
        raise NotImplementedError


class GaussianSteps:
    """A table bound to a schedule; a `Sampler`."""

    def __init__(self, schedule: NoiseSchedule, steps: Steps, table: Table) -> None:
        self.times, self.std = steps.times, table.std
        self.noisy = [bool(std > 0) for std in table.std]
        self._schedule, self._table, self._level = schedule, table, schedule.level(steps.times)

    def step(self, output: Tensor, state: Tensor, step: Tensor) -> Gaussian:
        """output, state (N, *L); step (N,) -> the distribution of the next state."""
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
        return Gaussian(mean, self.std[step].to(state))


def _refuse_without_signal(schedule: NoiseSchedule, steps: Steps) -> None:
    """Of pure noise a model that predicts the noise says nothing on the clean sample: the step
    would divide by zero.
    """
    if schedule.prediction == "epsilon" and not (steps.here.alpha > 0).all():
        raise ConfigError(
            f"sampler: the steps begin at time {steps.times[0]}, where this model's scheduler"
            " leaves noise alone (rescale_betas_zero_snr). The model predicts the noise (epsilon),"
            " which then says nothing on the image: every sample would be NaN. Ask for"
            " --sampler.spacing leading, which begins before that time; or, if the model was"
            " trained with v-prediction, say --model.prediction v_prediction."
        )
