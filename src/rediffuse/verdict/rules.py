"""The rules of the verdict, each with its numbers: what a run's rows say of it
(docs/verdict.md).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, Literal, get_args

from rediffuse.faults import Place, metric, place_of, told
from rediffuse.maths.trend import trend
from rediffuse.verdict.disagreement import Gap
from rediffuse.verdict.overoptimisation import (
    MIN_SHARE,
    Course,
    Rows,
    Shift,
    change,
    course,
    relative,
    to_lose,
)

Level = Literal["good", "warning", "bad", "unknown", "note"]
FEWEST_EPOCHS = 4
ERRORS = 3.0
"""Of a difference that counts, in standard errors."""
PERHAPS = 2.0
"""Of a slope that may be one, in its own standard errors."""
ALIKE = 0.5
"""Of the pretrained pictures' diversity."""
OFTEN_CLIPPED = 0.5
MASKED = 0.01
SAME = 0.05
"""Of the first epoch's standard deviation of the reward: with less, samples are all worth the
same.
"""
UNMOVED_NATS = 1.0
WITH_TEXT = 0.1
BEHIND = 0.5
"""Of a second judge, in standard deviations of the first epoch."""


@dataclass(frozen=True)
class Finding:
    """level: note is neither good nor bad"""

    rule: str
    level: Level
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """config: config.yaml   metrics: a row an epoch   looks: a row a look at the fixed pictures
    gaps: of disagreement.gaps
    checkpoints: in epochs done, those to choose the best from; None: any
    """

    config: Mapping[str, Any]
    metrics: Rows
    looks: Rows = ()
    gaps: Sequence[Gap] = ()
    checkpoints: Collection[int] | None = None

    @property
    def num_samples(self) -> int:
        """Of an epoch."""
        return int(self.config["prompts_per_epoch"]) * int(self.config["images_per_prompt"])

    @cached_property
    def course(self) -> Course:
        """How trained and held-out rewards moved over the evaluations."""
        return course(self.metrics, self.looks, self.checkpoints)

    @property
    def clip_fraction(self) -> float:
        """Of the last quarter of the epochs."""
        return fmean(
            row.get("clip_fraction", 0.0) for row in self.metrics[-max(1, len(self.metrics) // 4) :]
        )

    @property
    def kl(self) -> float | None:
        """In nats a picture, at the last look."""
        return self.looks[-1]["statistics"].get("kl") if self.looks else None


def learning(evidence: Evidence) -> Finding:
    """Whether the reward rises, against its own noise."""
    rows = evidence.metrics
    if len(rows) < FEWEST_EPOCHS:
        return Finding(
            "learning",
            "unknown",
            f"Too short to say: {len(rows)} epochs, and {FEWEST_EPOCHS} are the least.",
        )
    if relative(rows):
        return _learning_of_parts(evidence)
    errors = [
        row["reward_std"] / math.sqrt(max(1, row.get("trained_samples") or evidence.num_samples))
        for row in rows
    ]
    along = trend([row["reward_mean"] for row in rows], errors)
    spread = rows[0]["reward_std"]
    gain = along.last - along.first
    numbers = {
        "slope_in_errors": along.sure,
        "first": along.first,
        "last": along.last,
        "first_spread": spread,
    }
    moved = f"from {along.first:.3g} to {along.last:.3g}" + (
        f", {gain / spread:+.1f} standard deviations of the first samples" if spread else ""
    )
    queries = f"{rows[-1]['reward_queries']:,.0f} reward queries"
    if along.way == "rises":
        return Finding(
            "learning",
            "good",
            f"The reward rose {moved}: {along.sure:.0f} times its own noise.",
            numbers,
        )
    if along.way == "falls":
        return Finding(
            "learning",
            "bad",
            f"The reward fell {moved}: {-along.sure:.0f} times its own noise.",
            numbers,
        )
    if along.sure >= PERHAPS:
        text = f"The reward may be rising, {moved}: only {along.sure:.1f} times its own noise."
        return Finding("learning", "unknown", text, numbers)
    text = f"The reward is flat after {queries}, {moved}: {along.sure:.1f} times its own noise."
    return Finding("learning", "warning", text, numbers)


def collapse(evidence: Evidence) -> Finding | None:
    """A reward that rose and then lost what it had won."""
    rows = evidence.metrics
    if len(rows) < FEWEST_EPOCHS or relative(rows):
        return None
    top = max(rows, key=lambda row: row["reward_mean"])
    last = trend([row["reward_mean"] for row in rows]).last
    won, lost = top["reward_mean"] - rows[0]["reward_mean"], top["reward_mean"] - last
    if won <= 0 or lost < won / 2 or lost < top["reward_std"]:
        return None
    text = (
        f"The reward reached {top['reward_mean']:.3g} in epoch {top['epoch']}, and then lost"
        f" {lost / won:.0%} of what it had won."
    )
    return Finding("collapse", "bad", text, {"peak": top["epoch"], "won": won, "lost": lost})


def held_out_trend(evidence: Evidence) -> list[Finding]:
    """What rewards say that nothing was trained on, of the same pictures first and last."""
    looks = evidence.looks
    if len(looks) < 2 or not looks[0]["held_out"]:
        text = "No held-out reward was asked, so nothing here says whether the gain is real."
        return [Finding("held_out", "unknown", text)]
    return [_held_out(name, looks[0], looks[-1]) for name in looks[0]["held_out"]]


def overoptimised(evidence: Evidence) -> Finding | None:
    """The rule of overoptimisation.py."""
    if not (fall := evidence.course.fall):
        return None
    text = (
        f"Over-optimised after {fall.epoch} epochs: the reward did not fall, but the held-out"
        f" {fall.reward} lost {fall.share:.0%} of what it could lose ({fall.change.mean:+.3g} ±"
        f" {fall.change.error:.2g} on the same pictures, since epoch {fall.since})."
    )
    numbers = {
        "epoch": fall.epoch,
        "since": fall.since,
        "share": fall.share,
        "errors": _errors(fall.change),
    }
    return Finding("overoptimised", "bad", text, numbers)


def loss_of_diversity(evidence: Evidence) -> Finding | None:
    """Whether pictures of one prompt have come to be the same."""
    if len(evidence.looks) < 2:
        return None
    last = evidence.looks[-1]["statistics"]
    left, same = last.get("diversity"), last.get("near_identical") or 0.0
    if left is None:
        return None
    numbers = {"diversity": left, "near_identical": same}
    text = (
        f"Pictures of one prompt differ {left:.0%} as much from one another as the pretrained"
        " model's"
    )
    if left < ALIKE or same > ALIKE:
        text += f"; {same:.0%} of all are nearly identical to another." if same else "."
        return Finding("diversity", "warning", text, numbers)
    return Finding("diversity", "good", text + ".", numbers)


def appearance(evidence: Evidence) -> Finding | None:
    """What cheap statistics of the pictures say of a change in all of them."""
    if len(evidence.looks) < 2:
        return None
    first, last = evidence.looks[0]["statistics"], evidence.looks[-1]["statistics"]
    told, numbers = [], {}
    for name, most in (
        ("edge_density", 0.5),
        ("colour_entropy", 0.25),
        ("saturation", 0.5),
        ("brightness", 0.33),
    ):
        if (
            first.get(name)
            and last.get(name) is not None
            and abs(shift := last[name] / first[name] - 1) > most
        ):
            told.append(f"{name.replace('_', ' ')} {shift:+.0%}")
            numbers[name] = shift
    return (
        Finding(
            "appearance",
            "note",
            f"The pictures as a whole look different: {', '.join(told)}.",
            numbers,
        )
        if told
        else None
    )


def divergence(evidence: Evidence) -> Finding | None:
    """Reports the KL divergence from the pretrained model at the last evaluation, in nats."""
    if evidence.kl is None:
        return None
    return Finding(
        "kl",
        "note",
        f"KL to the pretrained model: {evidence.kl:.3g} nats a picture.",
        {"nats": evidence.kl},
    )


def clipping(evidence: Evidence) -> Finding | None:
    """Warns where most of the ratios are clipped."""
    share = evidence.clip_fraction
    if share < OFTEN_CLIPPED:
        return None
    text = (
        f"{share:.0%} of the samples are clipped: the policy moves further than the clip range"
        " allows."
    )
    return Finding("clipping", "warning", text, {"clip_fraction": share})


def precision(evidence: Evidence) -> Finding | None:
    """Whether the ratio before the first update, which should be 1, is further off than the
    algorithm can bear.
    """
    known = [row for row in evidence.metrics if "ratio_drift" in row and "max_ratio_drift" in row]
    worst = max(
        known, key=lambda row: float(row["ratio_drift"] / row["max_ratio_drift"]), default=None
    )
    if worst is None or worst["ratio_drift"] <= worst["max_ratio_drift"]:
        return None
    drift, allowed = worst["ratio_drift"], worst["max_ratio_drift"]
    text = (
        f"Before the first update the ratio is off 1 by up to {drift:.1e}; more than"
        f" {allowed:.1e} spoils the loss."
    )
    return Finding("precision", "warning", text, {"ratio_drift": drift, "allowed": allowed})


def skipped(evidence: Evidence) -> Finding | None:
    """Warns of updates that were skipped since they were not finite."""
    count = sum(row.get("skipped_updates", 0) for row in evidence.metrics)
    if not count:
        return None
    return Finding(
        "skipped",
        "warning",
        f"{count:.0f} updates were skipped: their gradient was not finite.",
        {"updates": count},
    )


def broken(evidence: Evidence) -> Finding | None:
    """Samples that were not finite: no fault of the reward."""
    count = sum(row.get("masked_broken_sample", 0) for row in evidence.metrics)
    if not count:
        return None
    places = {
        place: sum(row.get(metric(place), 0) for row in evidence.metrics)
        for place in get_args(Place)
    }
    most = max(places, key=lambda place: places[place])
    share = count / max(1, evidence.metrics[-1]["reward_queries"])
    text = (
        f"{share:.1%} of the samples were not finite and were left out ({count:.0f}), most of"
        f" them first in the {most}."
    )
    return Finding(
        "broken", "warning" if share > MASKED else "note", text, {"share": share, "place": most}
    )


def broken_pictures(evidence: Evidence) -> Finding | None:
    """Warns of fixed pictures that are not finite at the last evaluation."""
    found = evidence.looks[-1].get("broken") if evidence.looks else None
    if not found or not isinstance(found, Mapping):
        return None
    text = (
        f"At the last look {len(found)} of the fixed pictures were not finite."
        f" {told(found.values())}"
    )
    return Finding(
        "broken_pictures",
        "warning",
        text,
        {"pictures": len(found), "place": place_of(next(iter(found.values())))},
    )


def masked_rewards(evidence: Evidence) -> Finding | None:
    """Warns where more than MASKED of the rewards are missing, broken samples not counted."""
    count = sum(
        row["masked_rewards"] - row.get("masked_broken_sample", 0) for row in evidence.metrics
    )
    share = count / max(1, evidence.metrics[-1]["reward_queries"])
    if share <= MASKED:
        return None
    return Finding(
        "masked",
        "warning",
        f"{share:.1%} of the rewards failed and were left out ({count:.0f}).",
        {"share": share},
    )


def spread(evidence: Evidence) -> Finding | None:
    """Whether all samples have come to be worth the same, so that there is nothing to tell them
    apart by.
    """
    first, last = evidence.metrics[0]["reward_std"], evidence.metrics[-1]["reward_std"]
    if last > SAME * first and last > 0:
        return None
    text = (
        f"All samples are worth nearly the same: the reward's spread is {last:.3g}, and was"
        f" {first:.3g}."
    )
    return Finding("spread", "warning", text, {"first": first, "last": last})


def text_in_pictures(evidence: Evidence) -> Finding | None:
    """Whether the model has begun to write (docs/hacking.md)."""
    parts: Sequence[tuple[str, Level, str]] = (
        ("names_the_prompt", "bad", "words of their prompts, the typographic attack"),
        ("has_text", "warning", "text"),
    )
    for part, level, what in parts:
        shares = _part_along(evidence, part)
        if shares and shares[-1] - shares[0] >= WITH_TEXT:
            text = f"{shares[-1]:.0%} of the pictures hold {what}; at first {shares[0]:.0%} did."
            return Finding(
                "text", level, text, {"part": part, "first": shares[0], "last": shares[-1]}
            )
    return None


def second_judge(evidence: Evidence) -> Finding | None:
    """Says whether a second judge agrees with the reward, and warns where it does not."""
    if not evidence.gaps:
        return None
    last = evidence.gaps[-1]
    gap, error = last["gap"], last["gap_error"]
    if gap < BEHIND or error is None or gap < ERRORS * error:
        return Finding(
            "second_judge",
            "good",
            "The second judge agrees that the samples have become better.",
            {"gap": gap},
        )
    text = (
        f"The second judge is behind the first by {gap:.1f} ± {error:.1f} spreads: the first"
        " may have been fooled."
    )
    return Finding("second_judge", "warning", text, {"gap": gap, "error": error})


RULES: Sequence[Callable[[Evidence], Finding | None]] = (
    overoptimised, text_in_pictures, second_judge, collapse, loss_of_diversity, appearance, spread,
    divergence, clipping, precision, skipped, broken, broken_pictures, masked_rewards,
)  # fmt: skip


def _held_out(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Finding:
    first, last = before["held_out"][name], after["held_out"].get(name)
    moved = Shift(math.nan, math.nan, 0)
    if last:
        moved = change(first["values"], last["values"], before.get("images_per_prompt", 1))
    if not moved.n:
        return Finding(
            "held_out",
            "unknown",
            f"The held-out {name} gave nothing at the first or the last look.",
        )
    everything = to_lose(first)
    numbers = {
        "reward": name,
        "change": moved.mean,
        "error": moved.error,
        "errors": _errors(moved),
        "to_lose": everything,
    }
    said = f"{moved.mean:+.3g} ± {moved.error:.2g} on the same pictures"
    sure = (
        moved.n > 1
        and abs(moved.mean) >= ERRORS * moved.error
        and abs(moved.mean) >= MIN_SHARE * everything
    )
    if sure and moved.mean > 0:
        return Finding("held_out", "good", f"The held-out {name} rose too: {said}.", numbers)
    if sure and moved.mean < 0:
        return Finding("held_out", "bad", f"The held-out {name} fell: {said}.", numbers)
    return Finding("held_out", "note", f"The held-out {name} stayed as it was: {said}.", numbers)


def _learning_of_parts(evidence: Evidence) -> Finding:
    """Of a reward that is normalised over each epoch: whether its terms go the way of their
    weights.
    """
    rows = evidence.metrics
    terms = {
        str(each["name"]).rpartition(":")[2]: float(each.get("weight", 1))
        for each in evidence.config["reward"]["rewards"]
    }
    along = {
        name: [row[f"reward_{name}"] for row in rows if f"reward_{name}" in row] for name in terms
    }
    ways = {name: trend(values).way for name, values in along.items() if values}
    text = (
        "The reward is normalised over each epoch, so its mean says nothing; of its terms"
        f" {_listed(ways)}."
    )
    wanted = [
        (ways[name] == "rises") == (weight > 0) and ways[name] != "flat"
        for name, weight in terms.items()
        if name in ways
    ]
    return Finding("learning", "good" if any(wanted) else "warning", text, {"parts": ways})


def _part_along(evidence: Evidence, part: str) -> list[float]:
    """Its mean at each look, where a held-out reward has it; else in each epoch's samples."""
    for name in evidence.looks[0]["held_out"] if evidence.looks else ():
        entries = [
            look["held_out"].get(name, {}).get("parts", {}).get(part) or []
            for look in evidence.looks
        ]
        means = [
            fmean(known)
            for entry in entries
            if (known := [value for value in entry if value is not None])
        ]
        if len(means) > 1:
            return means
    name = next(
        (key for key in evidence.metrics[0] if key.startswith("reward_") and key.endswith(part)),
        None,
    )
    return [row[name] for row in evidence.metrics if name in row] if name else []


def _errors(moved: Shift) -> float | None:
    return moved.mean / moved.error if moved.error else None


def _listed(ways: Mapping[str, str]) -> str:
    return (
        ", ".join(f"{name} {'is flat' if way == 'flat' else way}" for name, way in ways.items())
        or "none is known"
    )
