"""Whether values rise along a run, against their own noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

FEW = 8
"""Values, of which a bend looks like noise about a line."""
SURE = 4.0
"""Of a slope, in its own standard errors."""


@dataclass(frozen=True)
class Trend:
    """Of values along epochs. sure: the slope in its own standard errors
    first, last: means of the first and last quarter
    """

    sure: float
    first: float
    last: float

    @property
    def way(self) -> Literal["rises", "falls", "flat"]:
        """What the line does, judged by its slope in standard errors."""
        return "rises" if self.sure >= SURE else "falls" if self.sure <= -SURE else "flat"


def trend(values: Sequence[float], noise: Sequence[float] = ()) -> Trend:
    """noise: the standard error of each value, if it is known; the slope's error is never taken for
    less than it gives. Of fewer than FEW values, the last against the first may be surer than the
    slope.
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
