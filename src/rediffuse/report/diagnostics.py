"""The charts of what a run measures beside its rewards: updates, time, memory, image statistics."""

import math
from collections.abc import Mapping, Sequence

from rediffuse.report.charts import Line
from rediffuse.report.panels import MOST_PANELS, Drawing, Panel, series
from rediffuse.runs.rows import MetricsRow, MonitorRow, column
from rediffuse.verdict.changes import finite

SECONDS = {
    "seconds_sampling": "sampling",
    "seconds_reward": "scoring",
    "seconds_training": "training",
}
GIGABYTE = 1e9
DIAGNOSTICS = {
    "approx_kl": (
        "Size of an update (KL)",
        "The KL divergence between the updated policy and the one that drew the samples.",
    ),
    "clip_fraction": (
        "Clip fraction",
        "The share of steps whose importance ratio was outside of the clip range.",
    ),
    "ratio_drift": (
        "Ratio drift",
        "The largest deviation of the importance ratio from 1 before the first update, caused by"
        " rounding.",
    ),
    "grad_norm": (
        "Gradient norm",
        "The mean norm of the gradients, before clipping. A sudden rise is a warning.",
    ),
    "masked_rewards": (
        "Missing rewards",
        "Samples without a valid reward; they are left out, never counted as 0.",
    ),
    "skipped_updates": (
        "Skipped updates",
        "Updates left out because their loss or gradient was not finite.",
    ),
}
STATISTICS = {
    "kl": (
        "Distance from the pretrained model (KL)",
        "In nats per image, on the evaluation prompts; it grows as the model changes.",
    ),
    "diversity": (
        "Diversity",
        "How much images of one prompt differ; 1 is the pretrained model. A fall means that they"
        " become alike.",
    ),
    "near_identical": (
        "Near-identical images",
        "The share of images that look almost the same as another one.",
    ),
    "distance": (
        "Distance from the pretrained model's images",
        "The mean distance from the pretrained model's image of the same prompt and seed.",
    ),
    "brightness": ("Brightness", "From 0, black, to 1, white."),
    "saturation": ("Saturation", "How strong the colours are, from 0, grey, to 1."),
    "edge_density": ("Edges", "How much of an image is outline or texture. Noise raises it."),
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
            drawing.panel("Memory", "The peak memory use, in gigabytes.", [memory], name="memory")
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
