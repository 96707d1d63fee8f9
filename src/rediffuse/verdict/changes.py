"""Paired differences of held-out rewards since the first evaluation, with standard errors."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from rediffuse.runs.rows import MonitorRow
from rediffuse.verdict.overoptimisation import shift


@dataclass(frozen=True)
class Change:
    """The difference of a held-out reward since the first evaluation, on the same prompts and
    seeds.

    Attributes:
        epoch: The number of completed epochs.
        mean: The mean over the images.
        difference: The mean difference over prompts.
        error: The standard error of `difference` over prompts.
        n: The number of prompts with a value at both evaluations.
    """

    epoch: int
    mean: float
    difference: float
    error: float
    n: int


def finite(value: float | None) -> float:
    """Returns the number as a float, or NaN for anything but a finite number, which the file of
    someone else may hold.
    """
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if ok and value is not None else math.nan


def held_out(looks: Iterable[MonitorRow]) -> dict[tuple[str, str], list[Change]]:
    """Computes the changes of all held-out rewards and their parts.

    Args:
        looks: Rows of monitor.jsonl.

    Returns:
        The changes by the names of the reward and its part; the part "" is the reward itself.
    """
    values: dict[tuple[str, str], list[tuple[int, list[float]]]] = {}
    images_per_prompt = 1
    for look in looks:
        asked: int | None = look.get("images_per_prompt")
        images_per_prompt = asked if isinstance(asked, int) and asked > 0 else images_per_prompt
        for judge, said in (look.get("held_out") or {}).items():
            own: list[float | None] | None = said.get("values")
            parts: Mapping[str, list[float | None]] = said.get("parts") or {}
            for part, each in {"": own, **parts}.items():
                known = [finite(value) for value in each or []]
                values.setdefault((judge, part), []).append((int(look["epoch"]), known))
    return {
        key: changes
        for key, looked in values.items()
        if (changes := paired(looked, images_per_prompt))
    }


def paired(looks: list[tuple[int, list[float]]], images_per_prompt: int = 1) -> list[Change]:
    """Computes the changes of one reward since the first evaluation.

    Args:
        looks: For each evaluation the number of completed epochs and one value for each image, NaN
            where unknown.
        images_per_prompt: The number of images of each prompt.
    """
    found = []
    for epoch, now in looks:
        pairs = [
            (None, None) if math.isnan(a + b) else (a, b)
            for a, b in zip(looks[0][1], now, strict=False)
        ]
        moved = shift([a for a, _ in pairs], [b for _, b in pairs], images_per_prompt)
        if moved.n:
            mean = fmean(b for _, b in pairs if b is not None)
            found.append(Change(epoch, mean, moved.mean, moved.error, moved.n))
    return found
