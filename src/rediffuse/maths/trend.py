"""Linear trends of values along a run, tested against their noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

FEW = 8
"""With fewer values than this, curvature cannot be told from noise about a line."""
SURE = 4.0
"""The slope, in its standard errors, from which a trend counts as rising or falling."""


@dataclass(frozen=True)
class Trend:
    """The linear trend of values over epochs.

    Attributes:
        sure: The slope divided by its standard error; signed.
        first: The mean of the first quarter of the values.
        last: The mean of the last quarter of the values.
    """

    sure: float
    first: float
    last: float

    @property
    def way(self) -> Literal["rises", "falls", "flat"]:
        """The direction of the trend: "flat" if the slope is within SURE standard errors of 0."""
        return "rises" if self.sure >= SURE else "falls" if self.sure <= -SURE else "flat"


def trend(values: Sequence[float], noise: Sequence[float] = ()) -> Trend:
    """Fits a line to the values and tests its slope.

    With fewer than FEW values and known noise, the difference of the last and the first quarter is
    tested too, and the result with the larger magnitude is returned.

    Args:
        values: The values in order, evenly spaced; at least one.
        noise: The standard error of each value, if known. It is a lower bound of the residual
            noise.

    Returns:
        The trend; `sure` is infinite if the values lie on a sloped line and the noise is unknown.
    """
    n, quarter = len(values), max(1, len(values) // 4)
    centre, mean = (n - 1) / 2, fmean(values)
    lever = sum((i - centre) ** 2 for i in range(n)) or 1.0
    slope = sum((i - centre) * value for i, value in enumerate(values)) / lever
    residual = sum(
        (value - mean - slope * (i - centre)) ** 2 for i, value in enumerate(values)
    ) / max(1, n - 2)
    least = fmean(error**2 for error in noise) if noise else 0.0
    error = math.sqrt(max(residual, least) / lever)
    sure = slope / error if error else math.copysign(math.inf, slope) if slope else 0.0
    first, last = fmean(values[:quarter]), fmean(values[-quarter:])
    if least and n < FEW:
        ends = (last - first) / math.sqrt(2 * least / quarter)
        sure = max(sure, ends, key=abs)
    return Trend(sure, first, last)
