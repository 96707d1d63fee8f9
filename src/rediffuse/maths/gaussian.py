"""The distribution of one denoising step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.deferred import torch
from rediffuse.maths.schedules import wide

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """An isotropic Gaussian distribution over the next state, one for each row.

    Attributes:
        mean: Shape (N, *L).
        std: Shape (N,); 0 for a deterministic step, which has no density.
    """

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Transforms standard normal noise (N, *L) into a sample (N, *L) of the distribution."""
        return self.mean + wide(self.std, self.mean) * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns the log-density of x, averaged over the elements of a latent.

        The average replaces the sum, as in both public implementations of DDPO (Black et al. 2023):
        the published clip ranges of 1e-4 refer to this average. The true log-ratio is larger by a
        factor of the number of elements.

        Args:
            x: Shape (N, *L).

        Returns:
            Shape (N,).
        """
        z = (x - self.mean) / wide(self.std, self.mean)
        density = -0.5 * z**2 - wide(self.std, self.mean).log() - 0.5 * math.log(2 * math.pi)
        return density.flatten(1).mean(1)

    def kl(self, other: Gaussian) -> Tensor:
        """Returns KL(self || other), averaged over the elements of a latent: shape (N,)."""
        ratio = wide(self.std / other.std, self.mean)
        gap = (self.mean - other.mean) / wide(other.std, self.mean)
        return (0.5 * (gap**2 + ratio**2 - 1) - torch.log(ratio)).flatten(1).mean(1)
