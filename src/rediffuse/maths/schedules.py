"""Noise schedules: how noisy a state is at each time, and what a network's output says of its
parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

Spacing = Literal["leading", "trailing", "linspace"]
Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


@dataclass(frozen=True)
class NoiseLevel:
    """How noisy states are: state = alpha · clean + sigma · noise.

    Attributes:
        alpha: shape (N,), or broadcastable to the states (N, *L).
        sigma: the same shape.
    """

    alpha: Tensor
    sigma: Tensor

    def __getitem__(self, step: Tensor) -> "NoiseLevel":
        """The levels of some steps: step (N,) -> (N,)."""
        return NoiseLevel(self.alpha[step], self.sigma[step])

    def like(self, state: Tensor) -> "NoiseLevel":
        """The levels (N,) on the device and in the dtype of states (N, *L), broadcastable to
        them.
        """
        return NoiseLevel(wide(self.alpha, state), wide(self.sigma, state))


@dataclass(frozen=True)
class Steps:
    """The way from noise to a clean sample in T steps.

    Attributes:
        times: shape (T,); what `Denoiser.predict` is told at each step. Only the schedule
            interprets it.
        here: the noise levels (T,) before each step, float64.
        after: the noise levels (T,) after each step, float64.
    """

    times: Tensor
    here: NoiseLevel
    after: NoiseLevel


class NoiseSchedule(Protocol):
    """What a diffusion model was trained to undo.

    Attributes:
        prediction: what the network predicts.
        clip_sample_range: predicted clean samples are clamped to ± this; None: never.
    """

    @property
    def prediction(self) -> Prediction: ...
    @property
    def clip_sample_range(self) -> float | None: ...
    def steps(self, num_steps: int) -> Steps:
        """The steps that the model is sampled in. Raises ValueError for a number of steps that it
        does not have.
        """
        ...

    def level(self, time: Tensor) -> NoiseLevel:
        """time (N,) -> levels (N,)."""
        ...

    def training_time(self, generator: torch.Generator) -> Tensor:
        """Shape (1,): a time drawn as in pretraining."""
        ...


@dataclass(frozen=True)
class Discrete:
    """The schedule of DDPM: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps for t in 0 …
    T_train - 1.

    The steps are those of diffusers' `DDIMScheduler`, which steps down by T_train // T from every
    time, whatever the spacing.

    Attributes:
        alpha_bar: shape (T_train,), cumulative products of 1 - beta (Ho et al. 2020, eq. 4).
        final_alpha_bar: the value after the last step; 1 for a clean sample.
        spacing: how the times of the steps are chosen.
        steps_offset: added to the times of leading spacing.
    """

    alpha_bar: Tensor
    final_alpha_bar: float
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    steps_offset: int = 0
    clip_sample_range: float | None = None

    def steps(self, num_steps: int) -> Steps:
        num_train = len(self.alpha_bar)
        if num_steps > num_train:
            raise ValueError(
                f"{num_steps} steps requested, but the model was trained on {num_train} times."
            )
        times = spaced_times(self.spacing, num_steps, num_train, self.steps_offset)
        if times[0] >= num_train:
            raise ValueError(
                f"{num_steps} steps with an offset of {self.steps_offset} begin at time {times[0]},"
                f" but the model was trained on 0 to {num_train - 1}. Ask for fewer, or for spacing"
                " trailing."
            )
        alpha_bar, before = self.alpha_bar.double(), times - num_train // num_steps
        after = torch.where(before >= 0, alpha_bar[before.clamp_min(0)], self.final_alpha_bar)
        return Steps(times, _of_alpha_bar(alpha_bar[times]), _of_alpha_bar(after))

    def level(self, time: Tensor) -> NoiseLevel:
        return _of_alpha_bar(self.alpha_bar[time])

    def training_time(self, generator: torch.Generator) -> Tensor:
        return torch.randint(len(self.alpha_bar), (1,), generator=generator)


@dataclass(frozen=True)
class Flow:
    """The schedule of flow matching: x_t = (1 - t) x_0 + t eps for t in [0, 1] (Lipman et al. 2023;
    Liu et al. 2023).

    The network predicts the velocity eps - x_0. A family that tells its network another number,
    such as 1000 t, converts it in `predict`.

    Attributes:
        sigmas: num_steps -> shape (num_steps + 1,), descending from at most 1 to 0; shifts are the
            family's affair.
    """

    sigmas: Callable[[int], Tensor]
    prediction: Prediction = "flow"
    clip_sample_range: float | None = None

    def steps(self, num_steps: int) -> Steps:
        times = self.sigmas(num_steps).double()
        return Steps(times[:-1], self.level(times[:-1]), self.level(times[1:]))

    def level(self, time: Tensor) -> NoiseLevel:
        return NoiseLevel(1 - time, time)

    def training_time(self, generator: torch.Generator) -> Tensor:
        return torch.rand(1, generator=generator, dtype=torch.float64)


class Meaning(NamedTuple):
    """What one kind of prediction says of a state's two parts, the clean sample and the noise.

    Attributes:
        coefficients: a level -> a, b, each broadcastable to the states: output = a · clean + b ·
            noise.
        solve: output, state, level -> clean, noise: that equation and the state's, solved for both.
            The closed forms lose fewer digits than the general inverse, and their results stay as
            they were.
    """

    coefficients: Callable[[NoiseLevel], tuple[Tensor | float, Tensor | float]]
    solve: Callable[[Tensor, Tensor, NoiseLevel], tuple[Tensor, Tensor]]


MEANINGS: dict[Prediction, Meaning] = {
    "epsilon": Meaning(
        lambda at: (0.0, 1.0),
        lambda output, state, at: ((state - at.sigma * output) / at.alpha, output),
    ),
    "v_prediction": Meaning(  # Salimans & Ho 2022, app. D
        lambda at: (-at.sigma, at.alpha),
        lambda output, state, at: (
            at.alpha * state - at.sigma * output,
            at.alpha * output + at.sigma * state,
        ),
    ),
    "sample": Meaning(
        lambda at: (1.0, 0.0),
        lambda output, state, at: (output, (state - at.alpha * output) / at.sigma),
    ),
    "flow": Meaning(
        lambda at: (-1.0, 1.0),
        lambda output, state, at: (
            (state - at.sigma * output) / (at.alpha + at.sigma),
            (state + at.alpha * output) / (at.alpha + at.sigma),
        ),
    ),
}


def noised(clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """The state (N, *L) made of a clean sample and noise of that shape; level: broadcastable to
    them.
    """
    return level.alpha * clean + level.sigma * noise


def training_target(
    prediction: Prediction, clean: Tensor, noise: Tensor, level: NoiseLevel
) -> Tensor:
    """What a perfect network outputs for the state, (N, *L); arguments as in `noised`."""
    of_clean, of_noise = MEANINGS[prediction].coefficients(level)
    return of_clean * clean + of_noise * noise


def clean_and_noise(
    prediction: Prediction, output: Tensor, state: Tensor, level: NoiseLevel
) -> tuple[Tensor, Tensor]:
    """What a network's output says of the clean sample and of the noise, each (N, *L).

    Args:
        output: shape (N, *L).
        state: shape (N, *L).
        level: broadcastable to them.
    """
    return MEANINGS[prediction].solve(output, state, level)


def wide(values: Tensor, state: Tensor) -> Tensor:
    """values (N,) -> the same on the device and in the dtype of states (N, *L), broadcastable to
    them.
    """
    return values.to(state).view(-1, *[1] * (state.ndim - 1))


def alpha_bar_linear(num_times: int, beta_start: float, beta_end: float) -> Tensor:
    """Shape (num_times,), of betas that are evenly spaced (Ho et al. 2020, sec. 4)."""
    return (1 - torch.linspace(beta_start, beta_end, num_times)).cumprod(0)


def shifted(sigmas: Tensor, shift: float) -> Tensor:
    """Times of flow matching moved towards noise for larger latents (Esser et al. 2024, eq. 23); a
    shift of 1 changes nothing.
    """
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def spaced_times(
    spacing: Spacing, num_steps: int, num_train_times: int, steps_offset: int = 0
) -> Tensor:
    """Shape (num_steps,) int64, descending (Lin et al. 2024, table 2; the rounding is
    diffusers').
    """
    if spacing == "linspace":
        gap = (num_train_times - 1) / max(1, num_steps - 1)
        return (torch.arange(num_steps, dtype=torch.float64) * gap).round().flip(0).long()
    if spacing == "leading":
        return torch.arange(num_steps).flip(0) * (num_train_times // num_steps) + steps_offset
    gap = (
        num_train_times - num_train_times / num_steps
    ) - num_train_times  # as numpy's arange has it, to the last bit
    return (num_train_times + torch.arange(num_steps, dtype=torch.float64) * gap).round().long() - 1


def _of_alpha_bar(alpha_bar: Tensor) -> NoiseLevel:
    return NoiseLevel(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())
