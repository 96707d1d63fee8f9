"""The report of a run: one HTML file with its verdict, curves and images, which works offline."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rediffuse.config.merge import read_entries
from rediffuse.config.reading import read_yaml
from rediffuse.config.rewards import term_names, title, trained
from rediffuse.errors import RunError
from rediffuse.report import panels, pictures, tables
from rediffuse.report.diagnostics import diagnostics
from rediffuse.report.markup import number, rendered
from rediffuse.report.panels import Drawing
from rediffuse.report.pictures import Frame
from rediffuse.runs import files
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import (
    MetricsRow,
    MonitorRow,
    RewardsRow,
    read_metrics,
    read_monitor,
    read_rewards,
)
from rediffuse.terminal.commands import command, pasteable
from rediffuse.verdict.changes import Change, finite, held_out
from rediffuse.verdict.disagreement import gaps
from rediffuse.verdict.overoptimisation import relative

STRIP_LENGTH = 8
"""The number of stages of training in the strip of images."""
NUM_STRIPS = 6
"""The number of prompts in the strip of images."""
SCRIPTS = ("slider.js",)
LIVE_SCRIPTS = (*SCRIPTS, "follow.js")


@dataclass(frozen=True)
class Told:
    """The content of a run's files; missing files are empty.

    Attributes:
        run: The run.
        config: The content of config.yaml.
        metrics: One row for each epoch.
        rewards: One row for each sample.
        looks: One row for each evaluation on the fixed prompts and seeds.
        verdict: The content of verdict.json.
        evaluation: The content of evaluation.json.
        prompts: The texts of the evaluation prompts.
    """

    run: RunFolder
    config: Mapping[str, Any]
    metrics: Sequence[MetricsRow]
    rewards: Sequence[RewardsRow]
    looks: Sequence[MonitorRow]
    verdict: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    prompts: Sequence[str]

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.run.path.resolve().name

    @property
    def main_column(self) -> str:
        """The column of metrics.jsonl that says how the reward rose: the mean, or the first term of
        a sum whose mean is always 0.
        """
        terms = term_names(trained(read_entries(self.config)))
        return f"reward_{terms[0]}" if relative(self.metrics) and terms else "reward_mean"

    @cached_property
    def held_out(self) -> Mapping[tuple[str, str], Sequence[Change]]:
        """The changes of the held-out rewards and their parts; see `changes.held_out`."""
        return held_out(self.looks)

    @property
    def marks(self) -> list[tuple[int, str]]:
        """The epochs that the verdict names, each with a label."""
        words = {"best": "best", "overoptimised_at": "over-optimised from here"}
        return [
            (int(self.verdict[key]), word)
            for key, word in words.items()
            if isinstance(self.verdict.get(key), int)
        ]


def write(
    run: RunFolder, out: Path | None = None, verdict: Mapping[str, Any] | None = None
) -> Path:
    """Writes the report of a run and returns its path.

    Args:
        run: The run.
        out: The file to write, e.g. if the run's folder is read-only; None: RUN/report.html.
        verdict: Replaces the verdict in the run's folder.

    Raises:
        RunError: The run has no completed epoch.
    """
    told = read(run)
    text = render(replace(told, verdict=verdict) if verdict is not None else told)
    if out is None:
        files.write_text(run.report, text)
        return run.report
    return files.write_out(out, text)


def read(run: RunFolder) -> Told:
    """Reads a run's files.

    Raises:
        RunError: The run has no completed epoch, or contains a link, which could expose other
            files.
    """
    files.refuse_linked_folders(run.path)
    files.refuse_links(run.path / "config.yaml")
    metrics = read_metrics(run)
    if not metrics:
        raise RunError(
            f"{run.path} has no finished epoch to report on. Resume it:"
            f" {command('resume', run.path)}"
        )
    return Told(
        run,
        config=read_yaml(run.path / "config.yaml"),
        metrics=metrics,
        rewards=read_rewards(run),
        looks=read_monitor(run),
        verdict=_json(run.verdict, {}),
        evaluation=_json(run.evaluation / "evaluation.json", {}),
        prompts=_json(run.samples / "prompts.json", []),
    )


def render(told: Told, *, version: str | None = None) -> str:
    """Returns the report as HTML.

    Args:
        told: The run.
        version: The version of a page that asks its server for updates; None for a file.
    """
    drawing = Drawing(told.marks)
    shown = slider_frames(told)
    table = tables.per_prompt(told.rewards)
    measured, silent = diagnostics(told.metrics, told.looks, drawing)
    return rendered(
        "page.html.jinja",
        scripts=SCRIPTS if version is None else LIVE_SCRIPTS,
        live=version is not None,
        version=version,
        told=told,
        names=headings(told.config),
        verdict=_with_commands(told) or plain_words(told.metrics),
        figures=tables.figures(told.metrics, told.config.get("epochs"), told.main_column),
        trained=panels.trained_rewards(told.metrics, told.rewards, told.config, drawing),
        held_out=panels.held_out_rewards(told.held_out, drawing),
        parts=panels.components(told.metrics, told.rewards, told.config, drawing),
        disagreement=panels.disagreement(gaps(told.rewards, told.config), drawing),
        frames=shown,
        captions=captions(shown, told),
        marks=_on_the_slider(shown, told),
        strip=pictures.evenly(shown, STRIP_LENGTH),
        num_strips=NUM_STRIPS,
        inputs=pictures.inputs(told.run.samples, shown[0].sheet.columns if shown else 0),
        suites=suites(told),
        table=table,
        said=any(row.said for row in table.rows),
        diagnostics=measured,
        silent=silent,
        yaml=(told.run.path / "config.yaml").read_text(encoding="utf-8", errors="replace"),
        command=command(
            "train", Path(told.name, "config.yaml"), "--run-dir", Path(f"{told.name}-again")
        ),
    )


def _with_commands(told: Told) -> Mapping[str, Any]:
    """Returns the verdict with the run's folder in its suggestion. It has no --trust-code: the
    reader must decide that.
    """
    suggestion = told.verdict.get("suggestion")
    if not isinstance(suggestion, str):
        return told.verdict
    return {**told.verdict, "suggestion": pasteable(suggestion, Path(told.name), lambda _: False)}


def headings(config: Mapping[str, Any]) -> dict[str, object]:
    """What a run's heading names: its components, and what it is trained on."""
    kinds = ("model", "algorithm", "prompts")
    found = {kind: component(config, kind) for kind in kinds}
    return {**found, "reward": title(read_entries(config))}


def component(config: Mapping[str, Any], kind: str) -> object:
    """Returns the name of a component in the configuration."""
    options = config.get(kind)
    return options.get("name", "") if isinstance(options, Mapping) else options


def slider_frames(told: Told) -> list[Frame]:
    """Returns the stages of training that the slider shows."""
    found = pictures.stages(told.run.samples)
    shown = pictures.milestones(found, pictures.MOST_FRAMES, [epoch for epoch, _ in told.marks])
    return pictures.frames(shown, len(told.prompts))


def captions(shown: Sequence[Frame], told: Told) -> list[str]:
    """Returns the caption of each frame: its epoch, the held-out or training rewards, and the
    verdict's labels.
    """
    marks: dict[int, list[str]] = {}
    for epoch, word in told.marks:
        at = next((frame.epoch for frame in shown if frame.epoch >= epoch), epoch)
        marks.setdefault(at, []).append(word if at == epoch else f"{word}: epoch {epoch}")
    scores: dict[int, list[str]] = {}
    for (judge, part), changes in told.held_out.items():
        for change in changes if not part else []:
            scores.setdefault(change.epoch, []).append(f"{judge} {number(change.mean)}")
    rewards = {
        row["epoch"]: [f"training reward {number(finite(row.get('reward_mean')))}"]
        for row in told.metrics
    }
    told_of = [
        [*scores.get(frame.epoch, rewards.get(frame.epoch, [])), *marks.get(frame.epoch, [])]
        for frame in shown
    ]
    return [
        " · ".join([_when(frame.epoch), *more]) for frame, more in zip(shown, told_of, strict=True)
    ]


def _on_the_slider(shown: Sequence[Frame], told: Told) -> list[tuple[float, str]]:
    """Returns the positions of the verdict's epochs on the slider, from 0 to 1, with their
    labels.
    """
    last = len(shown) - 1
    at = [
        (next((i for i, frame in enumerate(shown) if frame.epoch >= epoch), last), word)
        for epoch, word in told.marks
    ]
    return [(place / last, word) for place, word in at] if last > 0 else []


def suites(told: Told) -> list[dict[str, Any]]:
    """Returns the suites of the evaluation, each with the frame of its images or None."""
    found = []
    for i, suite in enumerate(told.evaluation.get("suites") or []):
        grid = told.run.evaluation / Path(str(suite.get("grid"))).name
        shown = pictures.frames([pictures.Stage(i, grid)], len(suite.get("prompts") or []), "suite")
        found.append({**suite, "frame": shown[0] if shown else None})
    return found


def plain_words(metrics: Sequence[MetricsRow]) -> dict[str, Any]:
    """Returns a substitute for the verdict of a run that has none."""
    start, end = finite(metrics[0].get("reward_mean")), finite(metrics[-1].get("reward_mean"))
    if len(metrics) == 1:
        text = f"One epoch is done; its mean reward is {number(start)}."
    else:
        way = "rose" if end > start else "fell" if end < start else "stayed"
        text = (
            f"The mean reward {way} from {number(start)} to {number(end)} in {len(metrics)} epochs."
        )
    return {"headline": text, "level": "unknown", "findings": []}


def _when(epoch: int) -> str:
    return "before training" if epoch == 0 else f"after {epoch} epoch{'s' if epoch > 1 else ''}"


def _json(path: Path, otherwise: Any) -> Any:
    """Reads a JSON file; `otherwise` is returned if it is missing, invalid or of another type.
    Raises RunError for a link.
    """
    files.refuse_links(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise
    return content if isinstance(content, type(otherwise)) else otherwise
