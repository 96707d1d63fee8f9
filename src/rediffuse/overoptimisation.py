"""Where a run went too far, and which checkpoint to keep: from the rows of its metrics and of its monitor alone.

The rule. A held-out reward has *fallen* at a look if the same pictures, same prompts and seeds, have lost since its best look

- more than chance: were nothing lost, a share of CHANCE of runs would show such a difference anywhere between two looks; and
- at least MIN_SHARE of what tells the pretrained pictures from those of another prompt, or, for a reward that does not look at
  the prompt, MIN_DEVIATIONS standard deviations of the pretrained pictures.

The run is over-optimised from the first look at which a held-out reward has fallen while the trained reward stands higher than
it did then. The best checkpoint is that of the highest trained reward among the looks before.
"""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rediffuse.maths.student import quantile

Rows = Sequence[Mapping[str, Any]]
CHANCE = 0.02
MIN_SHARE = 0.08
MIN_DEVIATIONS = 0.25
MIN_RISE = 2.0
"""Standard errors of the trained reward's own difference."""


@dataclass(frozen=True)
class Change:
    """Of the same pictures, from one look to another. error: standard error of the mean difference, 0 for fewer than two"""

    mean: float
    error: float
    n: int


@dataclass(frozen=True)
class Fall:
    """reward: the held-out one   since: the look, in epochs done, at which it was best   share: of what there is to lose"""

    epoch: int
    reward: str
    since: int
    change: Change
    share: float


@dataclass(frozen=True)
class Finding:
    """fall: where the run went too far, None if it did not   best: the checkpoint to keep, in epochs done"""

    fall: Fall | None
    best: int | None


def found(metrics: Rows, looks: Rows, checkpoints: Container[int] | None = None) -> Finding:
    """metrics: a row an epoch   looks: a row a look at the fixed pictures   checkpoints: those to choose from; None: any."""
    fall = next((fall for number in range(1, len(looks)) if (fall := _fall(metrics, looks[: number + 1]))), None)
    before = [row["epoch"] for row in looks if row["epoch"] > 0 and (fall is None or row["epoch"] < fall.epoch)]
    kept = [epoch for epoch in before if epoch <= len(metrics) and (checkpoints is None or epoch in checkpoints)]
    return Finding(fall, max(kept, key=lambda epoch: (float(_learned(metrics, epoch)["reward_mean"]), epoch), default=None))


def change(before: Sequence[float | None], after: Sequence[float | None]) -> Change:
    """Of values at the same places; those that one of them lacks are left out."""
    gains = [b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    if not gains:
        return Change(math.nan, math.nan, 0)
    return Change(fmean(gains), stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0, len(gains))


def to_lose(first: Mapping[str, Any]) -> float:
    """first: a held-out reward's entry of the first look -> the fall that would be all of it, in the reward's units.

    MIN_SHARE of this is the least fall that counts.
    """
    known = [value for value in first["values"] if value is not None]
    spread = stdev(known) if len(known) > 1 else 0.0
    other = first.get("of_other_prompts")
    mismatch = 0.0 if other is None or not known else fmean(known) - float(other)
    return max(spread * MIN_DEVIATIONS / MIN_SHARE, mismatch)


def least_errors(num_looks: int, num_pictures: int) -> float:
    """Standard errors that a difference must have which is the largest between any two looks (Student, Bonferroni)."""
    pairs = num_looks * (num_looks - 1) / 2
    return quantile(1 - CHANCE / max(1.0, pairs), num_pictures - 1)


def _fall(metrics: Rows, looks: Rows) -> Fall | None:
    """At the last of these looks."""
    now = looks[-1]
    for name, entry in now["held_out"].items():
        known = [row for row in looks[:-1] if row["held_out"].get(name, {}).get("mean") is not None]
        if entry["mean"] is None or not known:
            continue
        top = max(known, key=lambda row: float(row["held_out"][name]["mean"]))
        lost = change(top["held_out"][name]["values"], entry["values"])
        everything = to_lose(known[0]["held_out"][name])
        share = -lost.mean / everything if everything > 0 else 0.0
        significant = lost.n > 1 and lost.mean < 0 and -lost.mean >= least_errors(len(looks), lost.n) * lost.error
        if significant and share >= MIN_SHARE and _stands_higher(metrics, top["epoch"], now["epoch"]):
            return Fall(now["epoch"], name, top["epoch"], lost, share)
    return None


def _stands_higher(metrics: Rows, then: int, now: int) -> bool:
    """Whether the trained reward does; of one that is normalised over each epoch, and so always 0, it cannot be told."""
    rows = [_learned(metrics, epoch) for epoch in (then, now)]
    if all(abs(row["reward_mean"]) < 1e-6 for row in metrics):
        return True
    error = math.hypot(*(row["reward_std"] / math.sqrt(_num_samples(row)) for row in rows))
    return float(rows[1]["reward_mean"]) - float(rows[0]["reward_mean"]) > MIN_RISE * error


def _learned(metrics: Rows, epoch: int) -> Mapping[str, Any]:
    """The last epoch that a policy of so many epochs has learned from: what is known of its reward when it is looked at."""
    return metrics[min(max(epoch - 1, 0), len(metrics) - 1)]


def _num_samples(row: Mapping[str, Any]) -> float:
    return max(1.0, float(row["reward_queries"]) / (int(row["epoch"]) + 1) - float(row.get("masked_rewards", 0)))
