"""The rules of the verdict with their thresholds (docs/verdict.md)."""

import math
from collections.abc import Callable, Sequence

from rediffuse.runs.rows import MonitorRow, column
from rediffuse.verdict.disagreement import Gap
from rediffuse.verdict.evidence import Evidence, Finding, Level
from rediffuse.verdict.health import (
    broken,
    broken_pictures,
    clipping,
    divergence,
    masked_rewards,
    precision,
    skipped,
    spread,
)
from rediffuse.verdict.learned import collapse, part_along
from rediffuse.verdict.overoptimisation import (
    MIN_SHARE,
    Shift,
    shift,
    to_lose,
)

ERRORS = 3.0
"""The smallest difference that counts, in standard errors."""
ALIKE = 0.5
"""Diversity below this share of the pretrained model's, or a larger share of nearly identical
images, is a warning.
"""
WITH_TEXT = 0.1
"""The smallest increase of the share of images with text that counts."""
CHANGES = {"edge_density": 0.5, "colour_entropy": 0.25, "saturation": 0.5, "brightness": 0.33}
"""The relative change of each statistic from which the images count as different."""
BEHIND = 0.5
"""The smallest gap of a watched reward that counts, in standard deviations of the first epoch."""


def held_out_trend(evidence: Evidence) -> list[Finding]:
    """Compares each held-out reward at the last evaluation with the first one, on the same prompts
    and seeds.
    """
    looks = evidence.looks
    if len(looks) < 2 or not looks[0]["held_out"]:
        text = "No held-out reward was evaluated, so nothing shows whether the gain is real."
        return [Finding("held_out", "unknown", text)]
    return [_held_out(name, looks[0], looks[-1]) for name in looks[0]["held_out"]]


def overoptimised(evidence: Evidence) -> Finding | None:
    """Reports over-optimisation by the rule of overoptimisation.py."""
    if not (fall := evidence.course.fall):
        return None
    text = (
        f"Over-optimised after {fall.epoch} epochs: the reward did not fall, but the held-out"
        f" {fall.reward} lost {fall.share:.0%} of what it could lose ({fall.change.mean:+.3g} ±"
        f" {fall.change.error:.2g} on the same images, since epoch {fall.since})."
    )
    numbers = {
        "epoch": fall.epoch,
        "since": fall.since,
        "share": fall.share,
        "errors": _errors(fall.change),
    }
    return Finding("overoptimised", "bad", text, numbers)


def loss_of_diversity(evidence: Evidence) -> Finding | None:
    """Reports how diverse the images of a prompt are in comparison with the pretrained model's."""
    if len(evidence.looks) < 2:
        return None
    last = evidence.looks[-1]["statistics"]
    left, same = last.get("diversity"), last.get("near_identical") or 0.0
    if left is None:
        return None
    numbers = {"diversity": left, "near_identical": same}
    text = (
        f"Images of one prompt differ {left:.0%} as much from one another as the pretrained model's"
    )
    if left < ALIKE or same > ALIKE:
        text += f"; {same:.0%} of all are nearly identical to another." if same else "."
        return Finding("diversity", "warning", text, numbers)
    return Finding("diversity", "good", text + ".", numbers)


def appearance(evidence: Evidence) -> Finding | None:
    """Reports large relative changes of image statistics since the first evaluation."""
    if len(evidence.looks) < 2:
        return None
    first, last = evidence.looks[0]["statistics"], evidence.looks[-1]["statistics"]
    told: list[str] = []
    numbers: dict[str, float] = {}
    for name, most in CHANGES.items():
        before, after = column(first, name), column(last, name)
        if before and after is not None and abs(shift := after / before - 1) > most:
            told.append(f"{name.replace('_', ' ')} {shift:+.0%}")
            numbers[name] = shift
    return (
        Finding(
            "appearance",
            "note",
            f"The appearance of the images has changed: {', '.join(told)}.",
            numbers,
        )
        if told
        else None
    )


def text_in_pictures(evidence: Evidence) -> Finding | None:
    """Reports an increase of images with text, or with words of their prompts: the typographic
    attack (docs/hacking.md).
    """
    parts: Sequence[tuple[str, Level, str]] = (
        ("names_the_prompt", "bad", "words of their prompts, the typographic attack"),
        ("has_text", "warning", "text"),
    )
    for part, level, what in parts:
        shares = part_along(evidence, part)
        if shares and shares[-1] - shares[0] >= WITH_TEXT:
            text = f"{shares[-1]:.0%} of the images contain {what}; at first {shares[0]:.0%} did."
            return Finding(
                "text", level, text, {"part": part, "first": shares[0], "last": shares[-1]}
            )
    return None


def watched_rewards(evidence: Evidence) -> Finding | None:
    """Reports whether watched rewards agree with the trained one, by the one that is furthest
    behind.
    """
    if not evidence.gaps:
        return None
    last = {name: gaps[-1] for name, gaps in evidence.gaps.items()}
    behind = {name: gap for name, gap in last.items() if gap["gap"] >= BEHIND}
    sure = {name: gap for name, gap in behind.items() if _is_sure(gap)}
    name = max(sure or behind or last, key=lambda each: last[each]["gap"])
    gap, error = last[name]["gap"], last[name]["gap_error"]
    numbers = {"reward": name, "gap": gap, "error": error}
    if not behind:
        text = f"The watched reward {name} agrees with the trained reward."
        return Finding("watched_rewards", "good", text, numbers)
    spread = "" if error is None else f" ± {error:.1f}"
    if not sure:
        text = (
            f"The watched reward {name} may be behind the trained reward, by {gap:.1f}{spread}"
            " standard deviations, but with so few samples this may be chance."
        )
        return Finding("watched_rewards", "note", text, numbers)
    text = (
        f"The watched reward {name} is {gap:.1f}{spread} standard deviations behind the trained"
        " reward, which the policy may exploit."
    )
    return Finding("watched_rewards", "warning", text, numbers)


def _is_sure(gap: Gap) -> bool:
    return gap["gap_error"] is not None and gap["gap"] >= ERRORS * gap["gap_error"]


def _held_out(name: str, before: MonitorRow, after: MonitorRow) -> Finding:
    first, last = before["held_out"][name], after["held_out"].get(name)
    moved = Shift(math.nan, math.nan, 0)
    if last:
        moved = shift(first["values"], last["values"], before.get("images_per_prompt", 1))
    if not moved.n:
        return Finding(
            "held_out",
            "unknown",
            f"The held-out {name} has no value at the first or the last evaluation.",
        )
    everything = to_lose(first)
    numbers = {
        "reward": name,
        "change": moved.mean,
        "error": moved.error,
        "errors": _errors(moved),
        "to_lose": everything,
    }
    said = f"{moved.mean:+.3g} ± {moved.error:.2g} on the same images"
    sure = (
        moved.n > 1
        and abs(moved.mean) >= ERRORS * moved.error
        and abs(moved.mean) >= MIN_SHARE * everything
    )
    if sure and moved.mean > 0:
        return Finding("held_out", "good", f"The held-out {name} rose too: {said}.", numbers)
    if sure and moved.mean < 0:
        return Finding("held_out", "bad", f"The held-out {name} fell: {said}.", numbers)
    return Finding(
        "held_out", "note", f"The held-out {name} did not change significantly: {said}.", numbers
    )


def _errors(moved: Shift) -> float | None:
    return moved.mean / moved.error if moved.error else None


RULES: Sequence[Callable[[Evidence], Finding | None]] = (
    overoptimised, text_in_pictures, watched_rewards, collapse, loss_of_diversity, appearance,
    spread, divergence, clipping, precision, skipped, broken, broken_pictures, masked_rewards,
)  # fmt: skip
