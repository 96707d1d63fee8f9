"""The charts of what a run measures beside its rewards: updates, time, memory, image statistics."""

import math
from collections.abc import Mapping, Sequence

from rediffuse.report.charts import Line
from rediffuse.report.panels import MOST_PANELS, Drawing, Panel, series
from rediffuse.runs.rows import MetricsRow, MonitorRow, column
from rediffuse.verdict.changes import finite

SECONDS = {
    "seconds_sampling": "making pictures",
    "seconds_reward": "judging them",
    "seconds_training": "learning",
}
GIGABYTE = 1e9
DIAGNOSTICS = {
    "approx_kl": (
        "Size of an update (KL)",
        "How far one update moves the model from the one that made the pictures.",
    ),
    "clip_fraction": (
        "Updates held back",
        "The share of steps in which an update reached its limit (the clip fraction).",
    ),
    "ratio_drift": (
        "Ratio drift",
        "Before an update this would be exactly 0; what is left is rounding.",
    ),
    "grad_norm": (
        "Gradient norm",
        "How strongly the rewards pull on the model. A sudden rise is a warning.",
    ),
    "masked_rewards": (
        "Missing rewards",
        "Pictures without a usable reward; they are left out, never counted as 0.",
    ),
    "skipped_updates": (
        "Skipped updates",
        "Updates left out because their numbers were not finite.",
    ),
}
STATISTICS = {
    "kl": (
        "Distance from the pretrained model (KL)",
        "Of the fixed pictures, in nats per picture; it grows as the model changes.",
    ),
    "diversity": (
        "Diversity",
        "How different the pictures are from one another. A fall means that they become alike.",
    ),
    "near_identical": (
        "Near-identical pictures",
        "The share of pictures that look almost the same as another one.",
    ),
    "distance": (
        "Distance from the first pictures",
        "How far each picture has moved from the pretrained model's.",
    ),
    "brightness": ("Brightness", "From 0, black, to 1, white."),
    "saturation": ("Saturation", "How strong the colours are, from 0, grey, to 1."),
    "edge_density": ("Edges", "How much of a picture is outline or texture. Noise raises it."),
    "colour_entropy": ("Colour variety", "How many colours are in use (entropy)."),
}


def diagnostics(
    metrics: Sequence[MetricsRow], looks: Sequence[MonitorRow], drawing: Drawing
) -> tuple[list[Panel], list[str]]:
    """Returns the panels of metrics, and the titles of metrics that were 0 in every epoch."""
    panels, silent = [], []
    for key, (title, words) in DIAGNOSTICS.items():
        known = [value for value in series(metrics, key)[1] if not math.isnan(value)]
        if any(known):
            panels.append(_of_key(metrics, key, (title, words), drawing, key))
        elif known:
            silent.append(title)
    return [*panels, *_costs(metrics, drawing), *_statistics(looks, drawing)], silent


def _costs(metrics: Sequence[MetricsRow], drawing: Drawing) -> list[Panel]:
    """Returns the panels of time and memory."""
    lines = [
        Line(*series(metrics, key), label, tone=i) for i, (key, label) in enumerate(SECONDS.items())
    ]
    lines = [line for line in lines if _known(line)]
    panels = (
        [drawing.panel("Seconds per epoch", "Where the time goes.", lines, name="seconds")]
        if lines
        else []
    )
    gigabytes = [1 / GIGABYTE * finite(row.get("peak_memory_bytes")) for row in metrics]
    memory = Line([float(row["epoch"]) for row in metrics], gigabytes)
    if _known(memory):
        panels.append(
            drawing.panel(
                "Memory", "The most that was in use, in gigabytes.", [memory], name="memory"
            )
        )
    return panels


def _statistics(looks: Sequence[MonitorRow], drawing: Drawing) -> list[Panel]:
    """Returns the panels of image statistics, those of STATISTICS first."""
    rows: list[Mapping[str, object]] = [
        {"epoch": look["epoch"], **(look.get("statistics") or {})} for look in looks
    ]
    keys = [
        key
        for key in dict.fromkeys([*STATISTICS, *(key for row in rows for key in row)])
        if key != "epoch"
    ]
    known = [key for key in keys if any(not math.isnan(finite(column(row, key))) for row in rows)][
        :MOST_PANELS
    ]
    said = {key: STATISTICS.get(key, (key.replace("_", " "), "")) for key in known}
    return [_of_key(rows, key, said[key], drawing, f"statistic-{i}") for i, key in enumerate(known)]


def _of_key(
    rows: Sequence[Mapping[str, object]],
    key: str,
    said: tuple[str, str],
    drawing: Drawing,
    name: str,
) -> Panel:
    return drawing.panel(*said, [Line(*series(rows, key))], name=name)


def _known(line: Line) -> bool:
    return any(not math.isnan(value) for value in line.y)
