"""Whether a second judge, asked but not learned from, still agrees with the first: where not, a
reward is being gamed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, TypedDict

from rediffuse.verdict.changes import finite

SECOND = "second_opinion"
"""The part that rewards/second_judge.py adds; in a sum it stands behind its term's name."""


class Gap(TypedDict):
    """Of one epoch. gap: how much further the first judge went up than the second, in standard
    deviations of the first epoch;
    gap_error: its standard error, None of one sample
    correlation: of ranks (Spearman), None where one judge says one thing.
    """

    epoch: int
    gap: float
    gap_error: float | None
    correlation: float | None
    n: int


def gaps(rows: Iterable[Mapping[str, Any]]) -> list[Gap]:
    """Of rows of rewards.jsonl, over the samples of which both judges gave a number.

    Both are measured in their own mean and standard deviation (n - 1) of the first epoch that has
    two such samples. Empty where a second was never asked, or where a judge said the same of all of
    that epoch.
    """
    asked: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        first, second = _opinions(row)
        if not math.isnan(first + second):
            asked.setdefault(int(row["epoch"]), []).append((first, second))
    epochs = sorted(asked)
    start = next((asked[epoch] for epoch in epochs if len(asked[epoch]) > 1), [])
    units = [_unit(values) for values in zip(*start, strict=True)]
    if not units or not all(deviation > 0 for _, deviation in units):
        return []
    return [_gap(epoch, asked[epoch], units) for epoch in epochs]


def _opinions(row: Mapping[str, Any]) -> tuple[float, float]:
    """The first judge's and the second's; in a sum, the first is the term before whose name the
    second's part stands.
    """
    parts = row.get("parts") or {}
    name = next((part for part in parts if part == SECOND or part.endswith(f"_{SECOND}")), None)
    if name is None:
        return math.nan, math.nan
    term = name.removesuffix(SECOND).removesuffix("_")
    return finite(parts.get(term) if term else row.get("reward")), finite(parts[name])


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's: the correlation of ranks, those of equals being their mean."""
    ours, theirs = _ranks(first), _ranks(second)
    middle = (len(ours) + 1) / 2
    spread = math.sqrt(
        sum((a - middle) ** 2 for a in ours) * sum((b - middle) ** 2 for b in theirs)
    )
    if spread == 0:
        return None
    return sum((a - middle) * (b - middle) for a, b in zip(ours, theirs, strict=True)) / spread


def _gap(
    epoch: int, pairs: Sequence[tuple[float, float]], units: Sequence[tuple[float, float]]
) -> Gap:
    (mean, deviation), (other_mean, other_deviation) = units
    apart = [
        (first - mean) / deviation - (second - other_mean) / other_deviation
        for first, second in pairs
    ]
    n = len(apart)
    error = stdev(apart) / math.sqrt(n) if n > 1 else None
    correlation = rank_correlation([first for first, _ in pairs], [second for _, second in pairs])
    return Gap(epoch=epoch, gap=fmean(apart), gap_error=error, correlation=correlation, n=n)


def _unit(values: Sequence[float]) -> tuple[float, float]:
    return fmean(values), stdev(values)


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or values[order[end]] != values[order[start]]:
            for place in order[start:end]:
                ranks[place] = (start + 1 + end) / 2
            start = end
    return ranks
