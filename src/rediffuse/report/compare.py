"""Comparison of several runs on one task: methods, their curves and their standings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rediffuse.config.rewards import trained
from rediffuse.config.schema import Config
from rediffuse.errors import RunError
from rediffuse.report.settings import settings, task
from rediffuse.runs.folder import RunFolder, existing
from rediffuse.runs.rows import MetricsRow, read_metrics
from rediffuse.terminal.commands import command


@dataclass(frozen=True)
class ComparedRun:
    """A run to compare, read from its folder."""

    folder: RunFolder
    config: Config
    metrics: Sequence[MetricsRow]

    def curve(self) -> list[tuple[int, float]]:
        """Returns for each epoch the number of reward queries trained on before, and the mean
        reward.
        """
        return [
            (int(row["reward_queries"]) - self.config.num_samples, row["reward_mean"])
            for row in self.metrics
        ]

    @property
    def seconds(self) -> float:
        """The duration of all its epochs in seconds."""
        return sum(row["seconds_sampling"] + row["seconds_training"] for row in self.metrics)


@dataclass(frozen=True)
class Method:
    """Runs that differ only in their seed."""

    label: str
    runs: Sequence[ComparedRun]

    def curve(self) -> list[tuple[int, float, float, float]]:
        """Returns (queries, mean over seeds, minimum, maximum) of each epoch that all seeds have
        completed.
        """
        points = zip(*(run.curve() for run in self.runs), strict=False)
        return [
            (
                at[0][0],
                sum(r for _, r in at) / len(at),
                min(r for _, r in at),
                max(r for _, r in at),
            )
            for at in points
        ]


@dataclass(frozen=True)
class Standing:
    """A row of the table. `queries_to_reach` is None if the mean never reached the target."""

    label: str
    seeds: Sequence[int]
    first: float
    final: float
    least: float
    most: float
    best: float
    queries: int
    queries_to_reach: int | None
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        methods: The compared methods.
        standings: One row for each method, sorted by descending final reward.
        reach: The target of `queries_to_reach`.
    """

    methods: Sequence[Method]
    standings: Sequence[Standing]
    reach: float

    @property
    def runs(self) -> list[ComparedRun]:
        """All runs, method by method."""
        return [run for method in self.methods for run in method.runs]

    def table(self) -> Table:
        """Returns the table for a terminal."""
        rewards = ("first", "final", "least", "most")
        table = Table(
            "method", "seeds", *rewards, "queries", f"to {self.reach:.3f}", "s a run", box=None
        )
        for row in self.standings:
            values = [f"{getattr(row, reward):.3f}" for reward in rewards]
            reached = "never" if row.queries_to_reach is None else str(row.queries_to_reach)
            table.add_row(
                row.label,
                " ".join(map(str, row.seeds)),
                *values,
                str(row.queries),
                reached,
                f"{row.seconds:.0f}",
            )
        return table


def compared(paths: Sequence[Path], reach: float | None = None) -> Comparison:
    """Compares runs.

    Args:
        paths: The folders of the runs; duplicates are ignored.
        reach: The target reward; None: halfway between the mean initial and the best final reward.

    Raises:
        RunError: The runs are not comparable.
    """
    runs = [_read(path) for path in {path.resolve(): path for path in paths}.values()]
    refuse_incomparable(runs)
    methods = grouped(runs)
    curves = [method.curve() for method in methods]
    if reach is None:
        start = sum(curve[0][1] for curve in curves) / len(curves)
        reach = (start + max(curve[-1][1] for curve in curves)) / 2
    standings = [_standing(method, reach) for method in methods]
    return Comparison(methods, sorted(standings, key=lambda standing: -standing.final), reach)


def refuse_incomparable(runs: Iterable[ComparedRun]) -> None:
    """Raises RunError if the rewards are normalised, or if two runs differ in their task, prompts
    or model.
    """
    first, *others = runs
    for run in (first, *others):
        if run.config.scoring.normalize and len(trained(run.config.rewards)) > 1:
            raise RunError(
                f"{run.folder.path} cannot be compared: its rewards are normalised over each epoch,"
                " so that the mean of their sum is 0 in every one. Compare runs with"
                " scoring.normalize false."
            )
    for other in others:
        ours, theirs = task(first.config), task(other.config)
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                raise RunError(
                    f"{first.folder.path} and {other.folder.path} cannot be compared: {key} is"
                    f" {ours.get(key)!r} in one and {theirs.get(key)!r} in the other. Compare runs"
                    " of one task, with one model and one set of prompts."
                )


def grouped(runs: Sequence[ComparedRun]) -> list[Method]:
    """Groups runs that differ only in their seed; labels name the options in which methods
    differ.
    """
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(str(settings(run.config)), []).append(run)
    of_algorithm: dict[str, list[Mapping[str, Any]]] = {}
    for first, *_ in groups.values():
        of_algorithm.setdefault(first.config.algorithm["name"], []).append(settings(first.config))
    return [
        Method(
            _label(members[0].config, of_algorithm[members[0].config.algorithm["name"]]), members
        )
        for members in groups.values()
    ]


def _label(config: Config, alike: Sequence[Mapping[str, Any]]) -> str:
    """Returns the algorithm's name, with the options that differ between methods of it.

    Args:
        config: The configuration of a run of the method.
        alike: The settings of each method that has the same algorithm.
    """
    own = settings(config)
    apart = [key for key in own if any(other.get(key) != own[key] for other in alike)]
    return ", ".join([config.algorithm["name"], *(f"{key} {own[key]}" for key in apart)])


def _read(path: Path) -> ComparedRun:
    folder = existing(path)
    metrics = read_metrics(folder)
    if not metrics:
        raise RunError(
            f"{path} has no finished epoch to compare. Resume it: {command('resume', path)}"
        )
    return ComparedRun(folder, folder.config(), metrics)


def _standing(method: Method, reach: float) -> Standing:
    curve = method.curve()
    queries, final, least, most = curve[-1]
    seeds = [run.config.seed for run in method.runs]
    reached = next((at for at, mean, _, _ in curve if mean >= reach), None)
    seconds = sum(run.seconds for run in method.runs) / len(method.runs)
    best = max(mean for _, mean, _, _ in curve)
    return Standing(
        method.label, seeds, curve[0][1], final, least, most, best, queries, reached, seconds
    )
