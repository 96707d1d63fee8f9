"""Where a run went too far, and which checkpoint to keep: from the rows of its metrics and of its
monitor alone.

The rule. A held-out reward has *fallen* at a look if the same pictures, same prompts and seeds,
have lost since its best look

- more standard errors, over prompts, than `least_errors` asks for: more of them the more looks and
  held-out rewards there are;
- and at least MIN_SHARE of what there is to lose, which is what tells the pretrained pictures from
  those of another prompt, or MIN_DEVIATIONS / MIN_SHARE of their standard deviations, if that is
  more.

The run is over-optimised from the first look at which a held-out reward has fallen while the
trained reward stands higher than it did then; of a reward that is relative to its epoch, which
cannot be told, a fall is enough. The best checkpoint is that of the highest trained reward among
the looks before; the last of them where rewards are relative.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rediffuse.maths.student import quantile

Rows = Sequence[Mapping[str, Any]]
CHANCE = 0.02
"""Of a fall between two given looks where nothing was lost, shared among all looks and held-out
rewards.
"""
MIN_SHARE = 0.08
MIN_DEVIATIONS = 0.25
MIN_RISE = 2.0
"""Standard errors of the trained reward's own difference."""


@dataclass(frozen=True)
class Shift:
    """Of the same pictures, from one look to another. n: of prompts, whose pictures are not
    independent, with a value at both
    error: standard error of the mean difference over prompts, 0 for fewer than two
    """

    mean: float
    error: float
    n: int


@dataclass(frozen=True)
class Fall:
    """reward: the held-out one
    since: the look, in epochs done, at which it was best
    share: of what there is to lose
    """

    epoch: int
    reward: str
    since: int
    change: Shift
    share: float


@dataclass(frozen=True)
class Course:
    """fall: where the run went too far, None if it did not
    best: the checkpoint to keep, in epochs done
    """

    fall: Fall | None
    best: int | None


def course(metrics: Rows, looks: Rows, checkpoints: Collection[int] | None = None) -> Course:
    """metrics: a row an epoch
    looks: a row a look at the fixed pictures
    checkpoints: those to choose from; None: any.
    """
    fall = next(
        (fall for number in range(1, len(looks)) if (fall := _fall(metrics, looks[: number + 1]))),
        None,
    )
    before = [
        row["epoch"]
        for row in looks
        if row["epoch"] > 0 and (fall is None or row["epoch"] < fall.epoch)
    ]
    kept = [
        epoch
        for epoch in before
        if epoch <= len(metrics) and (checkpoints is None or epoch in checkpoints)
    ]
    if relative(metrics):
        return Course(fall, max(kept, default=None))
    rewards = {epoch: float(metrics[min(epoch, len(metrics) - 1)]["reward_mean"]) for epoch in kept}
    return Course(fall, max(kept, key=lambda epoch: (rewards[epoch], epoch), default=None))


def relative(metrics: Rows) -> bool:
    """Whether the reward says how a sample compares with its epoch, so that its mean says
    nothing.
    """
    return any(row.get("relative_reward") for row in metrics)


def shift(
    before: Sequence[float | None], after: Sequence[float | None], images_per_prompt: int = 1
) -> Shift:
    """Of values at the same places, prompt by prompt; those that one of them lacks are left out. Of
    a single prompt, its pictures are taken for independent: there is nothing else to go by.
    """
    images_per_prompt = images_per_prompt if len(before) > images_per_prompt else 1
    gains = [None if a is None or b is None else b - a for a, b in zip(before, after, strict=True)]
    prompts = (gains[i : i + images_per_prompt] for i in range(0, len(gains), images_per_prompt))
    means = [
        fmean(known)
        for prompt in prompts
        if (known := [gain for gain in prompt if gain is not None])
    ]
    if not means:
        return Shift(math.nan, math.nan, 0)
    return Shift(
        fmean(means), stdev(means) / math.sqrt(len(means)) if len(means) > 1 else 0.0, len(means)
    )


def to_lose(first: Mapping[str, Any]) -> float:
    """first: a held-out reward's entry of the first look -> the fall that would be all of it, in
    the reward's units.

    MIN_SHARE of this is the least fall that counts.
    """
    known = [value for value in first["values"] if value is not None]
    spread = stdev(known) if len(known) > 1 else 0.0
    other = first.get("of_other_prompts")
    mismatch = 0.0 if other is None or not known else fmean(known) - float(other)
    return max(spread * MIN_DEVIATIONS / MIN_SHARE, mismatch)


def least_errors(num_looks: int, num_rewards: int, num_prompts: int) -> float:
    """Standard errors that a fall must have (Student, one-sided, Bonferroni over looks and
    rewards).
    """
    return quantile(1 - CHANCE / num_looks / num_rewards, num_prompts - 1)


def _fall(metrics: Rows, looks: Rows) -> Fall | None:
    """At the last of these looks."""
    now = looks[-1]
    for name, entry in now["held_out"].items():
        known = [row for row in looks[:-1] if row["held_out"].get(name, {}).get("mean") is not None]
        if entry["mean"] is None or not known:
            continue
        top = max(known, key=lambda row: float(row["held_out"][name]["mean"]))
        lost = shift(
            top["held_out"][name]["values"], entry["values"], now.get("images_per_prompt", 1)
        )
        if (
            lost.n < 2
            or lost.mean >= 0
            or -lost.mean < least_errors(len(looks), len(now["held_out"]), lost.n) * lost.error
        ):
            continue
        everything = to_lose(known[0]["held_out"][name])
        # it was never worth more or less than it was at first
        share = -lost.mean / everything if everything > 0 else 1.0
        if share >= MIN_SHARE and _stands_higher(metrics, top["epoch"], now["epoch"]):
            return Fall(now["epoch"], name, top["epoch"], lost, share)
    return None


def _stands_higher(metrics: Rows, then: int, now: int) -> bool:
    """By the last epochs that the policies have learned from: all that is known when they are
    looked at.
    """
    if relative(metrics):
        return True
    before, after = (metrics[min(max(epoch - 1, 0), len(metrics) - 1)] for epoch in (then, now))
    error = math.hypot(
        *(row["reward_std"] / math.sqrt(_num_samples(row)) for row in (before, after))
    )
    return float(after["reward_mean"]) - float(before["reward_mean"]) > MIN_RISE * error


def _num_samples(row: Mapping[str, Any]) -> float:
    return max(
        1.0,
        float(row["reward_queries"]) / (int(row["epoch"]) + 1)
        - float(row.get("masked_rewards", 0)),
    )
