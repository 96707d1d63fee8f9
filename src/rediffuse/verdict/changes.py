"""How far the rewards of the same prompts and seeds have moved since training began: paired
differences, with their errors.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rediffuse.verdict.overoptimisation import shift


@dataclass(frozen=True)
class Change:
    """Since the first look. error: the standard error of `difference`, over prompts
    n: prompts that have a value at both.
    """

    epoch: int
    mean: float
    difference: float
    error: float
    n: int


def finite(value: object) -> float:
    """nan for what is not a finite number."""
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if ok else math.nan  # type: ignore[arg-type]


def held_out(looks: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Change]]:
    """By judge and part of it, "" for its reward itself; from rows of monitor.jsonl."""
    values: dict[tuple[str, str], list[tuple[int, list[float]]]] = {}
    images_per_prompt = 1
    for look in looks:
        asked = look.get("images_per_prompt")
        images_per_prompt = asked if isinstance(asked, int) and asked > 0 else images_per_prompt
        for judge, said in (look.get("held_out") or {}).items():
            for part, each in {"": said.get("values"), **(said.get("parts") or {})}.items():
                known = [finite(value) for value in each or []]
                values.setdefault((judge, part), []).append((int(look["epoch"]), known))
    return {
        key: changes
        for key, looked in values.items()
        if (changes := paired(looked, images_per_prompt))
    }


def paired(looks: list[tuple[int, list[float]]], images_per_prompt: int = 1) -> list[Change]:
    """looks: (epoch, a value per picture, nan where unknown), the first being what is compared
    with.
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
