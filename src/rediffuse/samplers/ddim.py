"""DDIM with noise: eta 0 is deterministic, eta 1 as noisy as DDPM."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rediffuse.config import PositiveInt
from rediffuse.errors import ConfigError
from rediffuse.maths.gaussian import Gaussian
from rediffuse.maths.schedules import NoiseSchedule, Spacing, clean_and_noise, spaced_times

__all__ = ["DDIM"]


@dataclass(frozen=True)
class DDIM:
    """spacing, set_alpha_to_one: None leaves them as the model's scheduler has them.

    num_quiet_steps: the last steps draw nothing and so are never trained. With leading spacing the
    last standard deviations are so small that their log-probability drowns that of all other steps.
    """

    num_steps: PositiveInt = 50
    eta: Annotated[float, Field(ge=0, le=1)] = 1.0
    spacing: Spacing | None = None
    set_alpha_to_one: bool | None = None
    num_quiet_steps: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if self.num_quiet_steps >= self.num_steps:
            raise ConfigError(
                f"sampler.num_quiet_steps: {self.num_quiet_steps} of {self.num_steps} steps; one must draw something."
            )

    def bind(self, schedule: NoiseSchedule) -> "DDIMSteps":
        num_train_times = len(schedule.alpha_bar)
        if self.num_steps > num_train_times:
            raise ConfigError(f"sampler.num_steps: {self.num_steps} asked, the model was trained on {num_train_times} times.")
        alpha_bar = schedule.alpha_bar.double()
        final = schedule.final_alpha_bar
        if self.set_alpha_to_one is not None:
            final = 1.0 if self.set_alpha_to_one else alpha_bar[0].item()
        times = spaced_times(self.spacing or schedule.spacing, self.num_steps, num_train_times, schedule.steps_offset)
        if times[0] >= num_train_times:
            raise ConfigError(
                f"sampler.num_steps: {self.num_steps} steps with an offset of {schedule.steps_offset} begin at time {times[0]},"
                f" but the model was trained on 0 to {num_train_times - 1}. Ask for fewer, or for spacing trailing."
            )
        _refuse_without_signal(schedule, times)
        before = times - num_train_times // self.num_steps
        alpha_bar_next = torch.where(before >= 0, alpha_bar[before.clamp_min(0)], final)
        eta = torch.full((self.num_steps,), self.eta, dtype=torch.float64)
        eta[self.num_steps - self.num_quiet_steps :] = 0
        return DDIMSteps(schedule, times, alpha_bar[times], alpha_bar_next, eta)


def _refuse_without_signal(schedule: NoiseSchedule, times: Tensor) -> None:
    """Of pure noise a model that predicts the noise says nothing on the clean sample: the step would divide by zero."""
    if schedule.prediction == "epsilon" and not (schedule.alpha_bar[times] > 0).all():
        raise ConfigError(
            f"sampler: the steps begin at time {times[0]}, where this model's scheduler leaves noise alone"
            " (rescale_betas_zero_snr). The model predicts the noise (epsilon), which then says nothing on the image: every"
            " sample would be NaN. Ask for --sampler.spacing leading, which begins before that time; or, if the model was trained"
            " with v-prediction, say --model.prediction v_prediction."
        )


class DDIMSteps:
    """DDIM (Song et al. 2021, eqs. 12 and 16) at given times. alpha_bar, alpha_bar_next, eta: (T,) float64.

    The times and the arithmetic are those of diffusers' `DDIMScheduler`, which steps down by
    T_train // T from every time, whatever the spacing.
    """

    def __init__(self, schedule: NoiseSchedule, times: Tensor, alpha_bar: Tensor, alpha_bar_next: Tensor, eta: Tensor) -> None:
        variance = (1 - alpha_bar_next) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_next)
        self.times = times
        self.std = eta * variance.clamp_min(0).sqrt()
        self.noisy = [bool(std > 0) for std in self.std]
        self._schedule = schedule
        self._alpha_bar = alpha_bar
        self._signal_next = alpha_bar_next.sqrt()
        self._direction = (1 - alpha_bar_next - self.std**2).clamp_min(0).sqrt()

    def step(self, output: Tensor, state: Tensor, step: Tensor) -> Gaussian:
        """output, state: (N, *L); step: (N,)."""
        step = step.cpu()

        def wide(values: Tensor) -> Tensor:
            return values[step].to(state).view(-1, *[1] * (state.ndim - 1))

        clean, noise = clean_and_noise(self._schedule.prediction, output, state, wide(self._alpha_bar))
        limit = self._schedule.clip_sample_range
        if limit is not None:
            clean = clean.clamp(-limit, limit)
        mean = wide(self._signal_next) * clean + wide(self._direction) * noise
        return Gaussian(mean, self.std[step].to(state))
