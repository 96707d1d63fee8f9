"""A denoiser walked by a sampler: given a state, a Gaussian over the next."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.maths.gaussian import Gaussian
from rediffuse.maths.schedules import noised, training_target
from rediffuse.types import CleanSamples, Conditioning, Denoiser, Guided, Sampler, Weights


@dataclass(frozen=True)
class DiffusionPolicy:
    """A denoiser and a sampler: each step is a Gaussian over the next state."""

    denoiser: Denoiser
    sampler: Sampler

    def act(self, state: Tensor, step: Tensor, conditioning: Conditioning) -> Gaussian:
        """state (N, *L), step (N,) -> the law of the next state."""
        return self.sampler.step(self.output(state, step, conditioning), state, step)

    def output(self, state: Tensor, step: Tensor, conditioning: Conditioning) -> Tensor:
        """state (N, *L), step (N,) -> what the network says of it, (N, *L)."""
        time = self.sampler.times[step.cpu()].to(state.device)
        return self.denoiser.predict(state, time, conditioning)

    def sensitivity(self) -> Tensor:
        """(T,): |d mean / d output| / std of each step, infinite where nothing is drawn."""
        steps = torch.arange(len(self.sampler.times))
        zeros = torch.zeros(len(steps), 1)
        law = self.sampler.step(zeros + 1e-3, zeros, steps)
        origin = self.sampler.step(zeros, zeros, steps)
        return ((law.mean - origin.mean).flatten().abs() / 1e-3) / law.std

    def denoising_error(self, batch: CleanSamples, *, guided: bool = True) -> Tensor:
        """(N,), as in pretraining (Ho et al. 2020, eq. 14). guided: of what `predict` says, as in
        sampling.
        """
        schedule, clean = self.denoiser.schedule, batch.latents
        level = schedule.level(batch.time).like(clean)
        state = noised(clean, batch.noise, level)
        network = self.denoiser.predict
        if not guided and isinstance(self.denoiser, Guided):
            network = self.denoiser.predict_unguided
        output = network(state, batch.time.to(clean.device), batch.conditioning)
        target = training_target(schedule.prediction, clean, batch.noise, level)
        return (output - target).square().flatten(1).mean(1)

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        return self.denoiser.using(weights)
