"""Noise schedules: noise levels by time, and how a network's output relates to clean sample and
noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor


Spacing = Literal["leading", "trailing", "linspace"]
Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


@dataclass(frozen=True)
class NoiseLevel:
    """The noise level of states: state = alpha · clean + sigma · noise.

    Attributes:
        alpha: Shape (N,), or broadcastable to the states (N, *L).
        sigma: The same shape.
    """

    alpha: Tensor
    sigma: Tensor

    def __getitem__(self, step: Tensor) -> NoiseLevel:
        """Returns the levels (N,) at step indices (N,)."""
        return NoiseLevel(self.alpha[step], self.sigma[step])

    def like(self, state: Tensor) -> NoiseLevel:
        """Returns the levels with the device and dtype of states (N, *L), broadcastable to them."""
        return NoiseLevel(wide(self.alpha, state), wide(self.sigma, state))


@dataclass(frozen=True)
class Steps:
    """Times and noise levels of the T denoising steps.

    Attributes:
        times: Shape (T,); passed to `Denoiser.predict` at each step. Only the schedule interprets
            them.
        here: The noise levels (T,) before each step, float64.
        after: The noise levels (T,) after each step, float64.
    """

    times: Tensor
    here: NoiseLevel
    after: NoiseLevel


class NoiseSchedule(Protocol):
    """The noise schedule that a diffusion model was trained with.

    Attributes:
        prediction: The quantity that the network predicts.
        clip_sample_range: Predicted clean samples are clamped to ± this value; None disables it.
    """

    @property
    def prediction(self) -> Prediction: ...
    @property
    def clip_sample_range(self) -> float | None: ...
    def steps(self, num_steps: int) -> Steps:
        """Returns the times and noise levels for sampling in `num_steps` steps.

        Raises:
            ValueError: The schedule cannot be divided into that number of steps.
        """
        ...

    def level(self, time: Tensor) -> NoiseLevel:
        """Returns the noise levels (N,) at times (N,)."""
        ...

    def training_time(self, generator: torch.Generator) -> Tensor:
        """Draws one time, shape (1,), from the distribution used in pretraining."""
        ...


@dataclass(frozen=True)
class Discrete:
    """The schedule of DDPM: x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps for t in 0 …
    T_train - 1.

    The steps equal those of diffusers' `DDIMScheduler`, where each step goes from time t to t -
    T_train // T, whatever the spacing.

    Attributes:
        alpha_bar: Shape (T_train,), cumulative products of 1 - beta (Ho et al. 2020, eq. 4).
        final_alpha_bar: The value after the last step; 1 for a clean sample.
        prediction: The quantity that the network predicts.
        spacing: How the times of the steps are spaced; see `spaced_times`.
        steps_offset: Added to the times if the spacing is "leading".
        clip_sample_range: Predicted clean samples are clamped to ± this value; None disables it.
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
                f"{num_steps} steps with an offset of {self.steps_offset} begin at time"
                f" {times[0]}, but the model was trained on 0 to {num_train - 1}. Use fewer, or"
                " spacing trailing."
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

    The network predicts the velocity eps - x_0. A model family whose network expects another time,
    such as 1000 t, converts it in `predict`.

    Attributes:
        sigmas: Maps num_steps to times of shape (num_steps + 1,), descending from at most 1 to 0.
            Time shifts are applied by the model family.
        prediction: The quantity that the network predicts.
        clip_sample_range: Predicted clean samples are clamped to ± this value; None disables it.
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
    """How one type of prediction relates to the clean sample and the noise of a state.

    Attributes:
        coefficients: Maps a noise level to (a, b), each broadcastable to the states, such that
            output = a · clean + b · noise.
        solve: Maps (output, state, level) to (clean, noise), which solve this equation and that of
            the state. The closed forms are more accurate than a general inverse of the 2 x 2
            system.
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
    """Returns the noisy state alpha · clean + sigma · noise.

    Args:
        clean: Shape (N, *L).
        noise: Shape (N, *L).
        level: Broadcastable to both.
    """
    return level.alpha * clean + level.sigma * noise


def training_target(
    prediction: Prediction, clean: Tensor, noise: Tensor, level: NoiseLevel
) -> Tensor:
    """Returns the regression target (N, *L) of the network; the arguments are as in `noised`."""
    of_clean, of_noise = MEANINGS[prediction].coefficients(level)
    return of_clean * clean + of_noise * noise


def clean_and_noise(
    prediction: Prediction, output: Tensor, state: Tensor, level: NoiseLevel
) -> tuple[Tensor, Tensor]:
    """Computes the clean sample and the noise that a network's output implies.

    Args:
        prediction: The quantity that the network predicts.
        output: Shape (N, *L).
        state: Shape (N, *L).
        level: Broadcastable to both.

    Returns:
        The clean sample and the noise, each of shape (N, *L).
    """
    return MEANINGS[prediction].solve(output, state, level)


def wide(values: Tensor, state: Tensor) -> Tensor:
    """Reshapes values (N,) to broadcast to states (N, *L), on their device and in their dtype; the
    host does not wait for values that it sends to a device.
    """
    sent = values.to(state, non_blocking=values.device.type == "cpu")
    return sent.view(-1, *[1] * (state.ndim - 1))


def alpha_bar_linear(num_times: int, beta_start: float, beta_end: float) -> Tensor:
    """Returns alpha_bar, shape (num_times,), for evenly spaced betas (Ho et al. 2020, sec. 4)."""
    return (1 - torch.linspace(beta_start, beta_end, num_times)).cumprod(0)


def shifted(sigmas: Tensor, shift: float) -> Tensor:
    """Shifts the times of flow matching towards noise, for larger latents (Esser et al. 2024, eq.
    23).

    A shift of 1 leaves them unchanged.
    """
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def spaced_times(
    spacing: Spacing, num_steps: int, num_train_times: int, steps_offset: int = 0
) -> Tensor:
    """Returns the times of the denoising steps (Lin et al. 2024, table 2, rounded as in diffusers).

    Returns:
        Shape (num_steps,), int64, descending.
    """
    if spacing == "linspace":
        gap = (num_train_times - 1) / max(1, num_steps - 1)
        return (torch.arange(num_steps, dtype=torch.float64) * gap).round().flip(0).long()
    if spacing == "leading":
        return torch.arange(num_steps).flip(0) * (num_train_times // num_steps) + steps_offset
    gap = (
        num_train_times - num_train_times / num_steps
    ) - num_train_times  # rounds as numpy.arange does, bit for bit
    return (num_train_times + torch.arange(num_steps, dtype=torch.float64) * gap).round().long() - 1


def _of_alpha_bar(alpha_bar: Tensor) -> NoiseLevel:
    return NoiseLevel(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())
