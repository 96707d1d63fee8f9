"""A denoiser walked by a sampler: given a state, a Gaussian over the next."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.maths.gaussian import Gaussian
from rediffuse.types import Conditioning, Denoiser, Sampler


@dataclass(frozen=True)
class DiffusionPolicy:
    denoiser: Denoiser
    sampler: Sampler

    def act(self, state: Tensor, step: Tensor, conditioning: Conditioning) -> Gaussian:
        """state (N, *L), step (N,) -> the law of the next state."""
        time = self.sampler.times[step.cpu()].to(state.device)
        output = self.denoiser.predict(state, time, conditioning)
        return self.sampler.step(output, state, step)

    def sensitivity(self) -> Tensor:
        """(T,): |d mean / d output| / std of each step, infinite where nothing is drawn."""
        steps = torch.arange(len(self.sampler.times))
        zeros = torch.zeros(len(steps), 1)
        law = self.sampler.step(zeros + 1e-3, zeros, steps)
        origin = self.sampler.step(zeros, zeros, steps)
        return ((law.mean - origin.mean).flatten().abs() / 1e-3) / law.std

    def frozen(self) -> AbstractContextManager[None]:
        return self.denoiser.frozen()
