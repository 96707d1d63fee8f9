"""The diffusion policy: a denoiser and a sampler that define a Gaussian over each next state."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.maths.gaussian import Gaussian
from rediffuse.maths.schedules import noised, training_target
from rediffuse.types import CleanSamples, Conditioning, Denoiser, Guided, Sampler, Weights


@dataclass(frozen=True)
class DiffusionPolicy:
    """A denoiser and a sampler. Each denoising step is a Gaussian distribution over the next state.

    Attributes:
        denoiser: The network with its text encoder and decoder.
        sampler: Computes the distribution of each step from the network's output.
        guidance_scale: Of classifier-free guidance, of a denoiser that is `Guided`; None: its own.
    """

    denoiser: Denoiser
    sampler: Sampler
    guidance_scale: float | None = None

    def act(self, state: Tensor, step: Tensor, conditioning: Conditioning) -> Gaussian:
        """Returns the distribution of the next state.

        Args:
            state: Shape (N, *L).
            step: Shape (N,), in [0, T).
            conditioning: The encoded prompts.
        """
        return self.sampler.step(self.output(state, step, conditioning), state, step)

    def output(self, state: Tensor, step: Tensor, conditioning: Conditioning) -> Tensor:
        """Returns the network's prediction, shape (N, *L); the arguments are as in `act`."""
        time = self.sampler.times[step.cpu()].to(state.device)
        return self._predicted(state, time, conditioning, self.guidance_scale)

    def sensitivity(self) -> Tensor:
        """Returns |d mean / d output| / std of each step: shape (T,), infinite for deterministic
        steps.
        """
        steps = torch.arange(len(self.sampler.times))
        zeros = torch.zeros(len(steps), 1)
        law = self.sampler.step(zeros + 1e-3, zeros, steps)
        origin = self.sampler.step(zeros, zeros, steps)
        return ((law.mean - origin.mean).flatten().abs() / 1e-3) / law.std

    def denoising_error(self, batch: CleanSamples, *, guided: bool = True) -> Tensor:
        """Returns the squared error of the pretraining objective (Ho et al. 2020, eq. 14), averaged
        over the elements of a latent.

        Args:
            batch: N clean samples with times and noise.
            guided: Whether to use the prediction with classifier-free guidance, as in sampling.

        Returns:
            Shape (N,).
        """
        schedule, clean = self.denoiser.schedule, batch.latents
        level = schedule.level(batch.time).like(clean)
        state = noised(clean, batch.noise, level)
        scale = self.guidance_scale if guided else 1.0
        time = batch.time.to(clean.device)
        output = self._predicted(state, time, batch.conditioning, scale)
        target = training_target(schedule.prediction, clean, batch.noise, level)
        return (output - target).square().flatten(1).mean(1)

    def _predicted(
        self, state: Tensor, time: Tensor, conditioning: Conditioning, scale: float | None
    ) -> Tensor:
        if scale is not None and isinstance(self.denoiser, Guided):
            return self.denoiser.predict_guided(state, time, conditioning, scale)
        return self.denoiser.predict(state, time, conditioning)

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        """Returns a context in which the denoiser predicts with those weights."""
        return self.denoiser.using(weights)
