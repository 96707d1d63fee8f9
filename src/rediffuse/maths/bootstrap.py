"""How far a mean may be from what more samples would give."""

import torch
from torch import Tensor


def interval(
    values: Tensor, generator: torch.Generator, *, coverage: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    """values (N,), independent -> (low, high), which hold the mean's percentile interval (Efron
    1979).

    Where samples belong together, such as several of one prompt, give their means: they are not
    independent.
    """
    chosen = torch.randint(len(values), (draws, len(values)), generator=generator)
    means = values.double()[chosen].mean(1)
    tail = (1 - coverage) / 2
    low, high = means.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
