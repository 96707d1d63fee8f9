"""Rules on whether the reward rises."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from rediffuse.config.merge import read_entries
from rediffuse.config.rewards import term_names, use_of
from rediffuse.maths.trend import trend
from rediffuse.runs.rows import MetricsRow, column
from rediffuse.verdict.evidence import Evidence, Finding
from rediffuse.verdict.overoptimisation import relative

FEWEST_EPOCHS = 4
"""The smallest number of epochs that a trend is computed for."""
PERHAPS = 2.0
"""The slope, in its standard errors, from which the reward may be rising."""


def learning(evidence: Evidence) -> Finding:
    """Reports whether the reward's trend is significant against its noise."""
    rows = evidence.metrics
    if len(rows) < FEWEST_EPOCHS:
        return Finding(
            "learning",
            "unknown",
            f"Too early to say: {len(rows)} epochs are done, and a trend needs at least"
            f" {FEWEST_EPOCHS}.",
        )
    if relative(rows):
        return _learning_of_parts(evidence)
    errors = [
        row["reward_std"] / math.sqrt(max(1, row.get("trained_samples") or evidence.num_samples))
        for row in rows
    ]
    along = trend([row["reward_mean"] for row in rows], errors)
    spread = rows[0]["reward_std"]
    gain = along.last - along.first
    numbers = {
        "slope_in_errors": along.sure,
        "first": along.first,
        "last": along.last,
        "first_spread": spread,
    }
    moved = f"from {along.first:.3g} to {along.last:.3g}" + (
        f", {gain / spread:+.1f} standard deviations of the first epoch's samples" if spread else ""
    )
    queries = f"{rows[-1]['reward_queries']:,.0f} reward queries"
    if along.way == "rises":
        return Finding(
            "learning",
            "good",
            f"The reward rose {moved}: its trend is {along.sure:.0f} standard errors.",
            numbers,
        )
    if along.way == "falls":
        return Finding(
            "learning",
            "bad",
            f"The reward fell {moved}: its trend is {-along.sure:.0f} standard errors.",
            numbers,
        )
    if along.sure >= PERHAPS:
        text = (
            f"The reward may be rising, {moved}: its trend is only {along.sure:.1f} standard"
            " errors."
        )
        return Finding("learning", "unknown", text, numbers)
    text = (
        f"The reward is flat after {queries}, {moved}: its trend is {along.sure:.1f} standard"
        " errors."
    )
    return Finding("learning", "warning", text, numbers)


def collapse(evidence: Evidence) -> Finding | None:
    """Reports a reward that rose and then lost at least half of its gain and one standard
    deviation.
    """
    rows = evidence.metrics
    if len(rows) < FEWEST_EPOCHS or relative(rows):
        return None
    top = max(rows, key=lambda row: row["reward_mean"])
    last = trend([row["reward_mean"] for row in rows]).last
    won, lost = top["reward_mean"] - rows[0]["reward_mean"], top["reward_mean"] - last
    if won <= 0 or lost < won / 2 or lost < top["reward_std"]:
        return None
    text = (
        f"The reward reached {top['reward_mean']:.3g} in epoch {top['epoch']}, and then lost"
        f" {lost / won:.0%} of its gain."
    )
    return Finding("collapse", "bad", text, {"peak": top["epoch"], "won": won, "lost": lost})


def _learning_of_parts(evidence: Evidence) -> Finding:
    """Reports, for a reward normalised over each epoch, whether a term moves in the direction of
    its weight.
    """
    rows = evidence.metrics
    entries = read_entries(evidence.config)
    uses = zip(term_names(entries), map(use_of, entries), strict=True)
    terms = {name: use.weight for name, use in uses if use.is_trained}
    along = {name: _along(rows, f"reward_{name}") for name in terms}
    ways = {name: trend(values).way for name, values in along.items() if values}
    text = (
        "The reward is normalised over each epoch, so its mean is not informative; its terms:"
        f" {_listed(ways)}."
    )
    wanted = [
        (ways[name] == "rises") == (weight > 0) and ways[name] != "flat"
        for name, weight in terms.items()
        if name in ways
    ]
    return Finding("learning", "good" if any(wanted) else "warning", text, {"parts": ways})


def part_along(evidence: Evidence, part: str) -> list[float]:
    """Returns the mean of a reward's part over time.

    If a held-out reward has this part, there is one value for each evaluation, otherwise one for
    each epoch; empty if the part is unknown.
    """
    for name in evidence.looks[0]["held_out"] if evidence.looks else ():
        entries = [
            look["held_out"].get(name, {}).get("parts", {}).get(part) or []
            for look in evidence.looks
        ]
        means = [
            fmean(known)
            for entry in entries
            if (known := [value for value in entry if value is not None])
        ]
        if len(means) > 1:
            return means
    keys = [key for key in evidence.metrics[0] if key.startswith("reward_") and key.endswith(part)]
    return _along(evidence.metrics, keys[0]) if keys else []


def _along(rows: Sequence[MetricsRow], name: str) -> list[float]:
    """Returns a column's values in the rows that have it."""
    return [value for row in rows if (value := column(row, name)) is not None]


def _listed(ways: Mapping[str, str]) -> str:
    return (
        ", ".join(f"{name} {'is flat' if way == 'flat' else way}" for name, way in ways.items())
        or "none is known"
    )
