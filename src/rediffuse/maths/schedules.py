"""What a diffusion model was trained to undo, and the times at which it can be asked to."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Spacing = Literal["leading", "trailing", "linspace"]
Prediction = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, for t in 0 … T_train - 1.

    alpha_bar: (T_train,)   final_alpha_bar: what stands after the last step, 1 for a clean image
    clip_sample_range: predicted clean samples are clamped to ± this; None: never
    """

    alpha_bar: Tensor
    final_alpha_bar: float
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    steps_offset: int = 0
    clip_sample_range: float | None = None


def alpha_bar_linear(num_times: int, beta_start: float, beta_end: float) -> Tensor:
    """(num_times,): betas evenly spaced (Ho et al. 2020, sec. 4)."""
    return (1 - torch.linspace(beta_start, beta_end, num_times)).cumprod(0)


def spaced_times(spacing: Spacing, num_steps: int, num_train_times: int, steps_offset: int = 0) -> Tensor:
    """(num_steps,) int64, descending (Lin et al. 2024, table 2; the rounding is diffusers')."""
    if spacing == "linspace":
        gap = (num_train_times - 1) / max(1, num_steps - 1)
        return (torch.arange(num_steps, dtype=torch.float64) * gap).round().flip(0).long()
    if spacing == "leading":
        return torch.arange(num_steps).flip(0) * (num_train_times // num_steps) + steps_offset
    gap = (num_train_times - num_train_times / num_steps) - num_train_times  # as numpy's arange has it, to the last bit
    return (num_train_times + torch.arange(num_steps, dtype=torch.float64) * gap).round().long() - 1


def noised(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t, (N, *L), from x_0 and eps of that shape; alpha_bar: broadcastable to them."""
    return alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise


def training_target(prediction: Prediction, clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """What a perfect network would say of x_t, (N, *L); arguments as in `noised`."""
    if prediction == "epsilon":
        return noise
    if prediction == "v_prediction":
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
    return clean


def clean_and_noise(prediction: Prediction, output: Tensor, state: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """What a network's output says of x_0 and of eps, each (N, *L).

    output, state: (N, *L)   alpha_bar: broadcastable to them
    v is sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0 (Salimans & Ho 2022, app. D).
    """
    signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if prediction == "epsilon":
        return (state - spread * output) / signal, output
    if prediction == "v_prediction":
        return signal * state - spread * output, signal * output + spread * state
    return output, (state - signal * output) / spread
