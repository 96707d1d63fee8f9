"""Comparison of several runs on one task: reward against reward queries, a table, and images."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image
from rich.table import Table

from rediffuse.config.declared import KEYS, declared_options, result_options
from rediffuse.config.rewards import trained, use_of
from rediffuse.config.schema import Config
from rediffuse.errors import RunError
from rediffuse.report.charts import drawn, in_page
from rediffuse.report.markup import rendered, shown
from rediffuse.report.pictures import embedded
from rediffuse.runs import files, log
from rediffuse.runs.folder import RunFolder, existing
from rediffuse.terminal.commands import command

TASK = ("rewards", "prompts", "sampler", "model")
MUTE = {"seed", "epochs", "micro_batch_size", "stall_seconds"}
"""Options that do not distinguish methods."""
NUM_PICTURES = 12
"""The number of prompts whose images are shown."""


@dataclass(frozen=True)
class ComparedRun:
    """A run to compare, read from its folder."""

    folder: RunFolder
    config: Config
    metrics: Sequence[Mapping[str, float]]

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


def write(comparison: Comparison, out: Path) -> Path:
    """Writes compare.html, .png, .svg and .csv to the folder `out`, and returns the path of the
    page.
    """
    runs, methods = comparison.runs, comparison.methods
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = chart(methods, runs[0].config.goal)
    if out.exists() and not out.is_dir():
        raise RunError(f"--out: {out} is a file; name a folder.")
    files.make_folder(out)
    for kind in ("png", "svg"):
        files.write_bytes(out / f"compare.{kind}", drawn(figure, kind))
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["method", "run", "seed", "reward_queries", "reward_mean"])
    for method in methods:
        for run in method.runs:
            rows.writerows(
                [method.label, run.folder.path, run.config.seed, *point] for point in run.curve()
            )
    files.write_text(out / "compare.csv", table.getvalue())
    page = rendered(
        "compare.html.jinja",
        config=runs[0].config,
        curve=in_page(lambda: chart(methods, runs[0].config.goal), "curve"),
        standings=comparison.standings,
        reach=comparison.reach,
        pictures=_pictures(methods),
        prompts=files.read_json(runs[0].folder.samples / "prompts.json")[:NUM_PICTURES]
        if _grids(runs[0])
        else [],
        seed=_common_seed(methods),
        runs=runs,
    )
    files.write_text(out / "compare.html", page)
    return out / "compare.html"


def refuse_incomparable(runs: Iterable[ComparedRun]) -> None:
    """Raises RunError if the rewards are normalised, or if two runs differ in their task, prompts
    or model.
    """
    first, *others = runs
    if first.config.scoring.normalize and len(trained(first.config.rewards)) > 1:
        raise RunError(
            f"{first.folder.path} cannot be compared: its rewards are normalised over each epoch,"
            " so that the mean of their sum is 0 in every one. Compare runs with scoring.normalize"
            " false."
        )
    for other in others:
        ours, theirs = _task(first.config), _task(other.config)
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
        groups.setdefault(str(_settings(run.config)), []).append(run)
    of_algorithm: dict[str, list[Mapping[str, Any]]] = {}
    for members in groups.values():
        of_algorithm.setdefault(members[0].config.algorithm["name"], []).append(
            _settings(members[0].config)
        )
    methods = []
    for members in groups.values():
        name, settings = members[0].config.algorithm["name"], _settings(members[0].config)
        alike = of_algorithm[name]
        apart = [key for key in settings if any(other.get(key) != settings[key] for other in alike)]
        methods.append(
            Method(", ".join([name, *(f"{key} {settings[key]}" for key in apart)]), members)
        )
    return methods


def chart(methods: Sequence[Method], reward: str) -> Figure:
    """Draws the mean over seeds and the range from minimum to maximum, against reward queries."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    for method in methods:
        queries, mean, least, most = zip(*method.curve(), strict=True)
        (line,) = axes.plot(
            queries,
            mean,
            marker="o",
            markersize=3,
            label=shown(f"{method.label} ({len(method.runs)})"),
        )
        axes.fill_between(queries, least, most, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xlabel("reward queries learned from")
    axes.set_ylabel(f"{shown(reward)}\nmean, least and most of the seeds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _read(path: Path) -> ComparedRun:
    folder = existing(path)
    metrics = log.read(folder.metrics)
    if not metrics:
        raise RunError(
            f"{path} has no finished epoch to compare. Go on with it: {command('resume', path)}"
        )
    return ComparedRun(folder, folder.config(), metrics)


def _task(config: Config) -> dict[str, Any]:
    """What compared runs must have in common."""
    flat = _flat(_compared(config))
    return {key: value for key, value in flat.items() if key.split(".")[0] in TASK}


def _settings(config: Config) -> dict[str, Any]:
    """Returns the options that may distinguish methods."""
    own = ("evaluation", "logging", "scoring")
    return {
        key: value
        for key, value in _flat(_compared(config, methods=True)).items()
        if key not in MUTE and key.split(".")[0] not in own
    }


def _compared(config: Config, *, methods: bool = False) -> dict[str, Any]:
    """The configuration without what does not change a result: how servers are reached, and rewards
    that are not trained on. Options that are younger than the run have their defaults.

    Args:
        methods: With the options in which methods may differ.
    """
    found = asdict(config)
    for key in KEYS.keys() - {"reward"}:
        known = declared_options(KEYS[key], str(found[key].get("name")))
        found[key] = {
            option: value
            for option, value in _complete(key, found[key]).items()
            if methods or option not in known or not known[option].is_of_a_method
        }
    found["rewards"] = {
        str(number): {**_complete("reward", entry), **use_of(entry).spelt()}
        for number, entry in enumerate(trained(config.rewards))
    }
    return found


def _complete(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    known = declared_options(KEYS[key], str(options.get("name")))
    defaults = {
        name: list(each.default) if isinstance(each.default, tuple) else each.default
        for name, each in known.items()
    }
    return result_options(key, {**defaults, **options})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


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


def _common_seed(methods: Sequence[Method]) -> int | None:
    """Returns the smallest seed for which every method has images of the same prompts; None if
    there is none.
    """
    if (
        len(
            {
                (run.config.evaluation.num_prompts, run.config.evaluation.images_per_prompt)
                for m in methods
                for run in m.runs
            }
        )
        > 1
    ):
        return None
    seeds = [{run.config.seed for run in method.runs if _grids(run)} for method in methods]
    return min(set.intersection(*seeds), default=None)


def _pictures(methods: Sequence[Method]) -> list[tuple[str, str]]:
    """Returns (label, data URI) pairs: the images before training, then each method's last images
    for a common seed.
    """
    seed = _common_seed(methods)
    if seed is None:
        return []
    chosen = [
        (method.label, next(run for run in method.runs if run.config.seed == seed))
        for method in methods
    ]
    return [
        ("before", _row(_grids(chosen[0][1])[0])),
        *((label, _row(_grids(run)[-1])) for label, run in chosen),
    ]


def _grids(run: ComparedRun) -> list[Path]:
    """Returns the grids of a run's evaluations, ordered by epoch."""
    return sorted(run.folder.samples.glob("epoch-*/grid.png"))


def _row(grid: Path) -> str:
    """Returns the first image of each prompt, as a data URI."""
    with Image.open(grid) as whole, Image.open(grid.parent / "000.png") as single:
        return embedded(
            whole.crop((0, 0, min(whole.width, NUM_PICTURES * single.width), single.height))
        )
