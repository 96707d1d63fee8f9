"""Disagreement of the trained reward with watched rewards, those of weight 0 that score a share of
the samples.

If the trained reward rises and a watched one does not, the policy may exploit the trained one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, TypedDict

from rediffuse.config.merge import read_entries
from rediffuse.config.rewards import component_of, term_names, use_of
from rediffuse.runs.rows import RewardsRow
from rediffuse.verdict.changes import finite


class Gap(TypedDict):
    """The gap between the trained reward and a watched one in an epoch.

    Attributes:
        epoch: The number of the epoch.
        gap: The rise of the trained reward minus that of the watched one, each in standard
            deviations of the first epoch.
        gap_error: The standard error of `gap`; None for a single sample.
        correlation: Spearman's rank correlation of the two; None if one of them is constant.
        n: The number of samples that both scored.
    """

    epoch: int
    gap: float
    gap_error: float | None
    correlation: float | None
    n: int


@dataclass(frozen=True)
class _Pair:
    """A watched reward and what it is compared with.

    Attributes:
        watched: The name of the watched reward's part.
        weights: The weights of the trained parts that it is compared with; empty: the reward
            itself.
    """

    watched: str
    weights: Mapping[str, float]

    def scores(self, row: RewardsRow) -> tuple[list[float], float]:
        """Returns a sample's trained values and its watched one; missing ones are NaN."""
        parts = row.get("parts") or {}
        trained = [parts.get(name) for name in self.weights] or [row.get("reward")]
        return [finite(each) for each in trained], finite(parts.get(self.watched))


def gaps(rows: Iterable[RewardsRow], config: Mapping[str, Any]) -> dict[str, list[Gap]]:
    """Computes the gap of each watched reward in each epoch, over the samples that it and the
    trained reward scored.

    Both are standardised by their mean and standard deviation (n - 1) over the first epoch with two
    such samples. A sum is compared as the weighted sum of its standardised terms. A reward that
    scores copies is compared with the trained reward of the same name, if there is one.

    Args:
        rows: The rows of rewards.jsonl.
        config: The content of config.yaml.

    Returns:
        The gaps in the order of epochs, by the name of the watched reward.
    """
    kept = list(rows)
    found = {pair.watched: _gaps(kept, pair) for pair in _pairs(config)}
    return {name: each for name, each in found.items() if each}


def _pairs(config: Mapping[str, Any]) -> list[_Pair]:
    entries = read_entries(config)
    uses, names = [use_of(each) for each in entries], term_names(entries)
    each = list(zip(entries, uses, names, strict=True))
    trained = {name: use.weight for _, use, name in each if use.is_trained}
    scoring = config.get("scoring")
    normalized = not isinstance(scoring, Mapping) or scoring.get("normalize", True)
    pairs = []
    for entry, use, name in each:
        if use.is_trained or not use.scored_share:
            continue
        original = [
            other_name
            for other, _, other_name in each
            if use.copy and other_name in trained and component_of(other) == component_of(entry)
        ]
        if len(trained) == 1:
            pairs.append(_Pair(name, {}))
        elif original:
            pairs.append(_Pair(name, {original[0]: 1.0}))
        else:
            pairs.append(_Pair(name, trained if normalized else {}))
    return pairs


def _gaps(rows: Sequence[RewardsRow], pair: _Pair) -> list[Gap]:
    epochs: dict[int, list[tuple[list[float], float]]] = {}
    for row in rows:
        trained, watched = pair.scores(row)
        if not math.isnan(math.fsum(trained) + watched):
            epochs.setdefault(int(row["epoch"]), []).append((trained, watched))
    start = next((epochs[epoch] for epoch in sorted(epochs) if len(epochs[epoch]) > 1), [])
    if not start:
        return []
    terms = [_unit(values) for values in zip(*(trained for trained, _ in start), strict=True)]
    weights = list(pair.weights.values()) or [1.0]

    def together(trained: Sequence[float]) -> float:
        """Returns the weighted sum; a term that is constant in the first epoch contributes 0."""
        each = zip(trained, terms, weights, strict=True)
        return sum(w * (value - mean) / sd for value, (mean, sd), w in each if sd > 0)

    scored = {
        epoch: [(together(trained), watched) for trained, watched in epochs[epoch]]
        for epoch in sorted(epochs)
    }
    first = next(each for each in scored.values() if len(each) > 1)
    units = [_unit(values) for values in zip(*first, strict=True)]
    if not all(deviation > 0 for _, deviation in units):
        return []
    return [_gap(epoch, pairs, units) for epoch, pairs in scored.items()]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Returns Spearman's correlation, in [-1, 1]; None if one of the two is constant.

    Equal values share the mean of their ranks.
    """
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
