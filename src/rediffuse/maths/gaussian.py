"""The law of one denoising step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.maths.schedules import wide


@dataclass(frozen=True)
class Gaussian:
    """An isotropic Gaussian over next states, one per row.

    mean: (N, *L)
    std: (N,), zero where nothing is drawn (and nothing has a density)
    """

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """noise (N, *L), standard normal -> (N, *L)."""
        return self.mean + wide(self.std, self.mean) * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of x (N, *L), averaged over the entries of L: (N,).

        The mean instead of the sum, as in both public codes of DDPO (Black et al. 2023): published
        clip ranges of 1e-4 are for this mean; the true log-ratio is larger by the number of
        entries.
        """
        z = (x - self.mean) / wide(self.std, self.mean)
        density = -0.5 * z**2 - wide(self.std, self.mean).log() - 0.5 * math.log(2 * math.pi)
        return density.flatten(1).mean(1)

    def kl(self, other: "Gaussian") -> Tensor:
        """KL(self || other), averaged over the entries of L: (N,)."""
        ratio = wide(self.std / other.std, self.mean)
        gap = (self.mean - other.mean) / wide(other.std, self.mean)
        return (0.5 * (gap**2 + ratio**2 - 1) - torch.log(ratio)).flatten(1).mean(1)
