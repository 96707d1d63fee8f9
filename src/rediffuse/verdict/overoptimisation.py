"""Over-optimisation: when it began, and which checkpoint to keep, from the rows of a run's metrics
and evaluations.

The rule: a held-out reward has *fallen* at an evaluation if, on the same prompts and seeds, its
drop since its best evaluation is

- significant: more standard errors, over prompts, than `least_errors` (a one-sided t-test at CHANCE
  with Bonferroni correction over evaluations and held-out rewards);
- large: at least MIN_SHARE of what there is to lose, which is the difference between the pretrained
  images scored with their own prompts and with other prompts, or MIN_DEVIATIONS / MIN_SHARE of
  their standard deviations if that is more.

The run is over-optimised from the first evaluation at which a held-out reward has fallen while the
trained reward has risen since the best evaluation, by more than MIN_RISE standard errors. If
rewards are relative to their epoch, so that epochs cannot be compared, the fall suffices. The best
checkpoint is the one with the highest trained reward among the evaluations before; with relative
rewards, the last of them.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from rediffuse.maths.student import quantile
from rediffuse.runs.rows import HeldOut, MetricsRow, MonitorRow

CHANCE = 0.02
"""The probability of finding a fall in a run without one, shared among all evaluations and held-out
rewards.
"""
MIN_SHARE = 0.08
"""The smallest share of what there is to lose that counts as a fall."""
MIN_DEVIATIONS = 0.25
"""The smallest fall that counts, in standard deviations over the pretrained images."""
MIN_RISE = 2.0
"""The smallest rise of the trained reward that counts, in standard errors of the difference."""


@dataclass(frozen=True)
class Shift:
    """The difference of a reward between two evaluations on the same prompts and seeds.

    Attributes:
        mean: The mean difference over prompts; NaN without any.
        error: The standard error of the mean over prompts; 0 for fewer than two.
        n: The number of prompts with a value at both evaluations. The images of a prompt are not
            independent and count as one.
    """

    mean: float
    error: float
    n: int


@dataclass(frozen=True)
class Fall:
    """A significant fall of a held-out reward.

    Attributes:
        epoch: The number of completed epochs at which it was found.
        reward: The name of the held-out reward.
        since: The number of completed epochs at the reward's best evaluation.
        change: The difference since then.
        share: The lost share of what there is to lose.
    """

    epoch: int
    reward: str
    since: int
    change: Shift
    share: float


@dataclass(frozen=True)
class Course:
    """Over-optimisation in a run.

    Attributes:
        fall: The first fall while the trained reward rose; None if there is none.
        best: The checkpoint to keep, in completed epochs; None if there is none to choose from.
    """

    fall: Fall | None
    best: int | None


def course(
    metrics: Sequence[MetricsRow],
    looks: Sequence[MonitorRow],
    checkpoints: Collection[int] | None = None,
) -> Course:
    """Applies the rule to a run.

    Args:
        metrics: One row for each epoch.
        looks: One row for each evaluation.
        checkpoints: Those that may be chosen as best, in completed epochs; None: any.
    """
    followed = Followed(list(metrics), list(looks))
    return followed.course(checkpoints)


@dataclass
class Followed:
    """A run that is followed as it goes on, so that each evaluation is judged once.

    Attributes:
        metrics: One row for each epoch so far; append new ones.
        looks: One row for each evaluation so far; append new ones.
    """

    metrics: list[MetricsRow] = field(default_factory=list)
    looks: list[MonitorRow] = field(default_factory=list)
    _judged: int = field(default=0, init=False)
    _fall: Fall | None = field(default=None, init=False)
    _first: dict[str, HeldOut] = field(default_factory=dict, init=False)
    _top: dict[str, tuple[int, HeldOut]] = field(default_factory=dict, init=False)

    def course(self, checkpoints: Collection[int] | None = None) -> Course:
        """Applies the rule to the run so far; `checkpoints` as in the function `course`."""
        while self._fall is None and self._judged < len(self.looks):
            row = self.looks[self._judged]
            self._judged += 1
            self._fall = self._fall_at(row)
            self._remember(row)
        return _course(self.metrics, self.looks, self._fall, checkpoints)

    def _remember(self, row: MonitorRow) -> None:
        """Notes the first entry of each held-out reward, and the one with the highest mean."""
        for name, entry in row["held_out"].items():
            mean = entry.get("mean")
            if mean is not None:
                self._first.setdefault(name, entry)
                top = self._top.get(name)
                if top is None or mean > float(top[1]["mean"] or 0.0):
                    self._top[name] = (row["epoch"], entry)

    def _fall_at(self, now: MonitorRow) -> Fall | None:
        """Returns a fall at an evaluation, the last of those that are judged."""
        for name, entry in now["held_out"].items():
            if entry["mean"] is None or name not in self._top:
                continue
            since, top = self._top[name]
            lost = shift(top["values"], entry["values"], now.get("images_per_prompt", 1))
            if (
                lost.n < 2
                or lost.mean >= 0
                or -lost.mean
                < least_errors(self._judged, len(now["held_out"]), lost.n) * lost.error
            ):
                continue
            everything = to_lose(self._first[name])
            # nothing to lose: all first values are equal, and other prompts score no lower
            share = -lost.mean / everything if everything > 0 else 1.0
            if share >= MIN_SHARE and _stands_higher(self.metrics, since, now["epoch"]):
                return Fall(now["epoch"], name, since, lost, share)
        return None


def _course(
    metrics: Sequence[MetricsRow],
    looks: Sequence[MonitorRow],
    fall: Fall | None,
    checkpoints: Collection[int] | None,
) -> Course:
    end = math.inf if fall is None else fall.epoch
    there = None if checkpoints is None else frozenset(checkpoints)
    kept = [
        epoch
        for row in looks
        if 0 < (epoch := row["epoch"]) < end
        and epoch <= len(metrics)
        and (there is None or epoch in there)
    ]
    if relative(metrics):
        return Course(fall, max(kept, default=None))
    rewards = {epoch: float(metrics[min(epoch, len(metrics) - 1)]["reward_mean"]) for epoch in kept}
    return Course(fall, max(kept, key=lambda epoch: (rewards[epoch], epoch), default=None))


def relative(metrics: Sequence[MetricsRow]) -> bool:
    """Whether rewards are relative to their epoch, so that their means cannot be compared over
    epochs.
    """
    return any(row.get("relative_reward") for row in metrics)


def shift(
    before: Sequence[float | None], after: Sequence[float | None], images_per_prompt: int = 1
) -> Shift:
    """Computes the paired difference between two evaluations.

    Args:
        before: One value for each image, ordered by prompt; None where missing.
        after: The later values of the same images. Images that lack one of both are left out.
        images_per_prompt: The number of images of each prompt. If there is only one prompt, its
            images are treated as independent.
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


def to_lose(first: HeldOut) -> float:
    """Returns the fall that counts as total, in the reward's units; MIN_SHARE of it is the smallest
    that counts.

    Args:
        first: The held-out reward's entry in its first evaluation.
    """
    known = [value for value in first["values"] if value is not None]
    spread = stdev(known) if len(known) > 1 else 0.0
    other = first.get("of_other_prompts")
    mismatch = 0.0 if other is None or not known else fmean(known) - float(other)
    return max(spread * MIN_DEVIATIONS / MIN_SHARE, mismatch)


def least_errors(num_looks: int, num_rewards: int, num_prompts: int) -> float:
    """Returns how many standard errors a fall must exceed (Student's t, one-sided, Bonferroni over
    evaluations and rewards).
    """
    return quantile(1 - CHANCE / num_looks / num_rewards, num_prompts - 1)


def _stands_higher(metrics: Sequence[MetricsRow], then: int, now: int) -> bool:
    """Compares the rewards of the last epochs that both policies were trained on, which are the
    only ones known at an evaluation.
    """
    if relative(metrics):
        return True
    before, after = (metrics[min(max(epoch - 1, 0), len(metrics) - 1)] for epoch in (then, now))
    error = math.hypot(
        *(row["reward_std"] / math.sqrt(_num_samples(row)) for row in (before, after))
    )
    return float(after["reward_mean"]) - float(before["reward_mean"]) > MIN_RISE * error


def _num_samples(row: MetricsRow) -> float:
    return max(
        1.0,
        float(row["reward_queries"]) / (int(row["epoch"]) + 1)
        - float(row.get("masked_rewards", 0)),
    )
