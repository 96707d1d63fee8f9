"""The page of a comparison: a chart of reward against reward queries, a table, and images."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from rediffuse.errors import RunError
from rediffuse.report.charts import drawn, in_page
from rediffuse.report.compare import ComparedRun, Comparison, Method
from rediffuse.report.markup import rendered, shown
from rediffuse.report.pictures import embedded
from rediffuse.runs import files

NUM_PICTURES = 12
"""The number of prompts whose images are shown."""


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
    files.write_text(out / "compare.csv", _csv(methods))
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


def _csv(methods: Sequence[Method]) -> str:
    """Returns the curves of all runs as a CSV file."""
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["method", "run", "seed", "reward_queries", "reward_mean"])
    for method in methods:
        for run in method.runs:
            rows.writerows(
                [method.label, run.folder.path, run.config.seed, *point] for point in run.curve()
            )
    return table.getvalue()


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
