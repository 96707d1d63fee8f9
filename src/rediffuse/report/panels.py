"""The charts of a run's rewards, with their titles and explanations."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import Any

from markupsafe import Markup

from rediffuse.config.merge import read_entries
from rediffuse.config.rewards import term_names, trained, use_of
from rediffuse.report import charts
from rediffuse.report.charts import Chart, Line
from rediffuse.report.markup import number
from rediffuse.runs.rows import MetricsRow, RewardsRow, column
from rediffuse.verdict.changes import Change, finite
from rediffuse.verdict.disagreement import Gap
from rediffuse.verdict.overoptimisation import relative

Marks = Sequence[tuple[float, str]]
MOST_PANELS = 24
"""The most charts of one kind, which limits the page of a reward with many parts."""
ERRORS = 2
"""The half-width of a band in standard errors; the band covers about 95 %."""
OWN = {"reward_mean", "reward_std", "reward_queries"}


@dataclass(frozen=True)
class Panel:
    """A chart with its title and explanation.

    Attributes:
        legend: The label of each line and its colour index.
        wide: The same chart for wide screens, if there is one.
    """

    title: str
    words: str
    chart: Markup
    wide: Markup | None = None
    legend: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Drawing:
    """Draws the panels of a page.

    Attributes:
        marks: Epochs with labels, drawn in each chart.
        prefix: Makes the charts' ids unique in the page.
    """

    marks: Marks
    prefix: str = "chart"

    def panel(
        self, title: str, words: str, lines: Sequence[Line], *, name: str, zero: bool = False
    ) -> Panel:
        """Returns a panel with a chart of the lines."""
        legend = [(line.label, line.tone) for line in lines if line.label]
        chart = Chart(lines, marks=self.marks, zero=zero)
        return Panel(title, words, charts.svg(chart, f"{self.prefix}-{name}"), legend=legend)


def reward(metrics: Sequence[MetricsRow], marks: Marks) -> Panel:
    """Returns the panel of the training reward and its standard deviation."""
    epochs = [float(row["epoch"]) for row in metrics]
    mean = [finite(row.get("reward_mean")) for row in metrics]
    spread = [finite(row.get("reward_std")) for row in metrics]
    low = [middle - width for middle, width in zip(mean, spread, strict=True)]
    high = [middle + width for middle, width in zip(mean, spread, strict=True)]
    line = Line(epochs, mean, low=low, high=high)
    narrow, wide = (
        Chart([line], width, height, marks) for width, height in ((350, 230), (860, 300))
    )
    words = (
        "The mean reward of each epoch's samples. The band is one standard deviation up and"
        " down: about two thirds of the samples lie in it."
    )
    return Panel(
        "Reward in training", words, charts.svg(narrow, "reward"), charts.svg(wide, "reward-wide")
    )


def trained_rewards(
    metrics: Sequence[MetricsRow],
    rewards: Sequence[RewardsRow],
    config: Mapping[str, Any],
    drawing: Drawing,
) -> list[Panel]:
    """Returns the panels of what is trained on: the reward, or each term of a normalised sum, whose
    own mean is always 0.
    """
    if not relative(metrics):
        return [reward(metrics, drawing.marks)]
    entries = trained(read_entries(config))
    spreads = _spreads(rewards)
    return [
        _component(
            metrics,
            f"reward_{name}",
            spreads.get(name, {}),
            drawing,
            f"term-{number}",
            f"Its weight in the normalised sum that is trained on is {use_of(entry).weight:g}.",
        )
        for number, (name, entry) in enumerate(zip(term_names(entries), entries, strict=True))
    ][:MOST_PANELS]


def components(
    metrics: Sequence[MetricsRow],
    rewards: Sequence[RewardsRow],
    config: Mapping[str, Any],
    drawing: Drawing,
) -> list[Panel]:
    """Returns a panel for each part of the reward, with its standard deviation over the samples,
    without those that `trained_rewards` shows.
    """
    terms = term_names(trained(read_entries(config)))
    shown = len(terms) == 1 or relative(metrics)
    own = OWN | {f"reward_{name}" for name in terms if shown}
    keys = [
        key
        for key in dict.fromkeys(key for row in metrics for key in row)
        if key.startswith("reward_") and key not in own
    ]
    spreads = _spreads(rewards)
    return [
        _component(metrics, key, spreads.get(key.removeprefix("reward_"), {}), drawing, f"part-{i}")
        for i, key in enumerate(keys[:MOST_PANELS])
    ]


def _component(
    metrics: Sequence[MetricsRow],
    key: str,
    spread: Mapping[float, float],
    drawing: Drawing,
    name: str,
    words: str = "",
) -> Panel:
    epochs, mean = series(metrics, key)
    widths = [spread.get(epoch, math.nan) for epoch in epochs]
    low = [m - w for m, w in zip(mean, widths, strict=True)]
    high = [m + w for m, w in zip(mean, widths, strict=True)]
    line = Line(epochs, mean, low=low, high=high) if spread else Line(epochs, mean)
    return drawing.panel(key.removeprefix("reward_"), words, [line], name=name)


def _spreads(rewards: Sequence[RewardsRow]) -> dict[str, dict[float, float]]:
    """Returns the standard deviations over each epoch's samples, by part and epoch."""
    values: dict[str, dict[float, list[float]]] = {}
    for row in rewards:
        for part, value in (row.get("parts") or {}).items():
            if not math.isnan(known := finite(value)):
                values.setdefault(part, {}).setdefault(finite(row["epoch"]), []).append(known)
    return {
        part: {epoch: pstdev(each) for epoch, each in epochs.items()}
        for part, epochs in values.items()
    }


def held_out_rewards(
    changes_of: Mapping[tuple[str, str], Sequence[Change]], drawing: Drawing
) -> list[Panel]:
    """Returns a panel for each held-out reward and each of its parts, given their changes."""
    found = list(changes_of.items())[:MOST_PANELS]
    return [
        _changed(judge, part, changes, drawing, f"held-{i}")
        for i, ((judge, part), changes) in enumerate(found)
    ]


def disagreement(found: Mapping[str, Sequence[Gap]], drawing: Drawing) -> list[Panel]:
    """Returns two panels for each reward that is only watched, on a share of the samples."""
    shown = list(found.items())[: MOST_PANELS // 2]
    return [
        panel
        for number, (name, each) in enumerate(shown)
        for panel in _disagreement(name, each, drawing, f"-{number}" if number else "")
    ]


def _disagreement(name: str, found: Sequence[Gap], drawing: Drawing, which: str) -> list[Panel]:
    epochs, gap = [row["epoch"] for row in found], [row["gap"] for row in found]
    error = [ERRORS * (row["gap_error"] or 0.0) for row in found]
    low = [g - e for g, e in zip(gap, error, strict=True)]
    high = [g + e for g, e in zip(gap, error, strict=True)]
    ranks = [math.nan if row["correlation"] is None else row["correlation"] for row in found]
    apart = (
        f"How much further the trained reward rose than {name} on the same samples, in standard"
        " deviations of the first epoch. Above 0, the trained reward is going up for reasons that"
        f" {name} does not share."
    )
    alike = (
        "Spearman's rank correlation of both on an epoch's samples: 1 is the same order, 0 is no"
        " relation."
    )
    return [
        drawing.panel(
            f"The trained reward against {name}",
            apart,
            [Line(epochs, gap, low=low, high=high)],
            name=f"gap{which}",
            zero=True,
        ),
        drawing.panel(
            f"Rank correlation with {name}",
            alike,
            [Line(epochs, ranks, tone=1)],
            name=f"ranks{which}",
            zero=True,
        ),
    ]


def _changed(
    judge: str, part: str, changes: Sequence[Change], drawing: Drawing, name: str
) -> Panel:
    moved = [change.difference for change in changes]
    low = [change.difference - ERRORS * change.error for change in changes]
    high = [change.difference + ERRORS * change.error for change in changes]
    line = Line([change.epoch for change in changes], moved, low=low, high=high, tone=1)
    title = f"{judge}: {part}" if part else judge
    words = (
        f"The change since the pretrained model on the same images of {changes[-1].n} prompts,"
        f" with a 95 % band. From {number(changes[0].mean)} to {number(changes[-1].mean)}."
    )
    return drawing.panel(title, words, [line], name=name, zero=True)


def series(rows: Iterable[Mapping[str, object]], key: str) -> tuple[list[float], list[float]]:
    """Returns the epochs and the values of a column, NaN where a row has none."""
    kept = list(rows)
    return [finite(column(row, "epoch")) for row in kept], [
        finite(column(row, key)) for row in kept
    ]
