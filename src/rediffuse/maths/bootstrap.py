"""Bootstrap confidence intervals of a mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor


def interval(
    values: Tensor, generator: torch.Generator, *, coverage: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the mean (Efron 1979).

    Args:
        values: Shape (N,), independent. Average dependent samples, such as several of one prompt,
            first.
        generator: Draws the resamples.
        coverage: The probability that the interval should cover, in (0, 1).
        draws: The number of resamples.

    Returns:
        The lower and the upper end of the interval.
    """
    chosen = torch.randint(len(values), (draws, len(values)), generator=generator)
    means = values.double()[chosen].mean(1)
    tail = (1 - coverage) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
