"""The scores of an epoch's samples: gathering from all processes, the limit of missing rewards,
metrics and the rows of rewards.jsonl.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from rediffuse import faults
from rediffuse.config.schema import Scoring
from rediffuse.errors import NonFiniteError, RewardError, Status, UnusableRewardError
from rediffuse.processes.world import World
from rediffuse.runs.rows import RewardColumns, RewardsRow
from rediffuse.scoring.journal import Scored, finite_or_none
from rediffuse.scoring.judging import STATUSES
from rediffuse.types import Prompt

BROKEN = STATUSES.index("broken_sample")


@dataclass(frozen=True)
class Scores:
    """The scores of B samples, of this process or of all. All tensors are float64.

    Attributes:
        rewards: Shape (B,); NaN for samples without a reward.
        image_hashes: Shape (B,); see `scorer.image_hashes`.
        seconds: The time spent in calls of the reward, in this process.
        parts: The parts of the reward, by name; each has shape (B,).
        notes: B texts for each note, by name.
        statuses: Shape (B,), positions in STATUSES.
        attempts: Shape (B,), the number of calls.
    """

    rewards: Tensor
    image_hashes: Tensor
    seconds: float
    parts: dict[str, Tensor]
    notes: dict[str, list[str]]
    statuses: Tensor
    attempts: Tensor

    @classmethod
    def of(cls, samples: Sequence[Scored], seconds: float) -> "Scores":
        """Returns the scores of samples, in their order."""
        parts = dict.fromkeys(name for sample in samples for name in sample.parts)
        notes = dict.fromkeys(name for sample in samples for name in sample.notes)
        return cls(
            _column([sample.reward for sample in samples]),
            _column([sample.image_hash for sample in samples]),
            seconds,
            {
                name: _column([sample.parts.get(name, math.nan) for sample in samples])
                for name in parts
            },
            {name: [sample.notes.get(name, "") for sample in samples] for name in notes},
            _column([STATUSES.index(sample.status) for sample in samples]),
            _column([sample.attempts for sample in samples]),
        )

    def refuse_too_few(self, options: Scoring) -> None:
        """Raises RewardError or NonFiniteError if too many of an epoch's rewards are missing; see
        `refuse_too_few`.
        """
        refuse_too_few(
            [STATUSES[i] for i in self.statuses.long().tolist()],
            len(self.rewards),
            options,
            broken=self.faults,
        )

    def gathered(self, indices: Tensor, num_samples: int, world: World) -> "Scores":
        """Gathers the scores of all processes, in the order of the epoch's samples; all processes
        must call it together.

        Args:
            indices: Shape (B,), the numbers of this process's samples in the epoch.
            num_samples: The number of samples in the epoch.
            world: The processes.
        """
        columns = (self.rewards, self.image_hashes, self.statuses, self.attempts)
        rewards, hashes, statuses, attempts = (
            world.gathered(each, indices, num_samples) for each in columns
        )
        unknown, silent = torch.full_like(self.rewards, torch.nan), [""] * len(self.rewards)
        parts = {
            name: world.gathered(self.parts.get(name, unknown), indices, num_samples)
            for name in world.names_of_all(self.parts)
        }
        notes = {
            name: world.gathered_texts(self.notes.get(name, silent), indices, num_samples)
            for name in world.names_of_all(self.notes)
        }
        return Scores(rewards, hashes, self.seconds, parts, notes, statuses, attempts)

    @property
    def faults(self) -> list[str]:
        """For each sample that is not finite, where it stopped being finite."""
        broken = (self.statuses == BROKEN).tolist()
        return [
            fault
            for fault, bad in zip(self.notes.get(faults.NOTE, ()), broken, strict=False)
            if bad
        ]

    def combined(self, combine: Callable[[Mapping[str, Tensor]], Tensor]) -> "Scores":
        """Returns the scores of a whole epoch with rewards computed from the parts by `combine`;
        only samples that are "ok" get one.
        """
        return replace(self, rewards=combine(self.parts).where(self.statuses == 0, torch.nan))


def refuse_too_few(
    statuses: Sequence[Status],
    num_samples: int,
    options: Scoring,
    error: RewardError | None = None,
    broken: Sequence[str] = (),
    reasons: Sequence[str] = (),
) -> None:
    """Checks that enough of an epoch's rewards are known.

    Args:
        statuses: The statuses of all samples in the epoch, or of those known so far.
        num_samples: The number of samples in the epoch.
        options: Its `max_failed` is the largest share of missing rewards.
        error: The failure that made the last rewards missing, for the message.
        broken: The faults of samples that are not finite.
        reasons: Why rewards are missing, for the message if there is no error.

    Raises:
        NonFiniteError: If too many are missing, but not without the samples that are not finite.
        RewardError: If too many are missing otherwise.
    """
    lost = Counter(status for status in statuses if status != "ok")
    allowed = options.max_failed * num_samples
    if lost.total() <= allowed and lost.total() < num_samples:
        return
    listed = ", ".join(f"{count} {status}" for status, count in lost.most_common())
    share = f"scoring.max_failed allows a share of {options.max_failed:g}."
    saved = "The run is saved up to the previous epoch:"
    if broken and lost.total() - len(broken) <= allowed:
        raise NonFiniteError(
            f"{lost.total()} of {num_samples} samples of this epoch cannot be trained on:"
            f" {listed}; {share} {faults.told(broken)} {saved} change its config.yaml, then"
            " resume.",
            of_the_policy=any(faults.place_of(fault) in faults.OF_THE_POLICY for fault in broken),
        )
    why = str(error) if error else f"The first: {'; '.join(reasons)}." if reasons else ""
    hopeless = isinstance(error, UnusableRewardError) and lost.total() == len(statuses)
    raise (UnusableRewardError if hopeless else RewardError)(
        f"{lost.total()} of {num_samples} rewards of this epoch cannot be trained on: {listed};"
        f" {share}{f' {why}' if why else ''} {saved} fix the reward, then resume."
    ) from (error.__cause__ if error and error.status != "invalid_shape" else None)


def summary(name: str, scores: Scores) -> RewardColumns:
    """Sums up an epoch's rewards (N,) and their parts (N,); missing ones are left out but counted.

    Args:
        name: The name of the reward; empty for a sum, whose terms are parts.
        scores: The scores of the epoch.

    Returns:
        The columns of the rewards, with those that are open-ended (`MetricsRow`).
    """
    valid = scores.rewards[scores.rewards.isfinite()]
    found = {part: values[values.isfinite()] for part, values in sorted(scores.parts.items())}
    masked = Counter(STATUSES[i] for i in scores.statuses.long().tolist())
    broken = Counter(map(faults.place_of, scores.faults))
    of_all: RewardColumns = {
        "reward_mean": valid.mean().item(),
        "reward_std": valid.std(correction=0).item(),
        "masked_rewards": len(scores.rewards) - len(valid),
    }
    columns = {
        # first: a reward may be called "std"
        **({f"reward_{name}": valid.mean().item()} if name else {}),
        **{f"reward_{part}": values.mean().item() for part, values in found.items() if len(values)},
        **of_all,
        **{f"masked_{status}": masked[status] for status in STATUSES[1:] if masked[status]},
        **{faults.metric(place): count for place, count in broken.items()},
    }
    return cast(RewardColumns, columns)


def journal(epoch: int, prompts: Sequence[Prompt], scores: Scores) -> list[RewardsRow]:
    """Returns the row of each sample of the epoch."""
    columns = (scores.rewards, scores.statuses, scores.attempts, scores.image_hashes)
    rows: list[RewardsRow] = []
    for index, (prompt, value, status, attempts, image) in enumerate(
        zip(prompts, *(each.tolist() for each in columns), strict=True)
    ):
        row: RewardsRow = {
            "epoch": epoch,
            "index": index,
            "prompt": prompt.shown,
            "reward": finite_or_none(value),
            "status": STATUSES[int(status)],
            "attempts": int(attempts),
            "image_hash": f"{int(image):012x}",
        }
        if scores.parts:
            row["parts"] = {
                part: finite_or_none(values[index].item()) for part, values in scores.parts.items()
            }
        notes = {
            note: texts[index]
            for note, texts in scores.notes.items()
            if note != faults.NOTE or texts[index]
        }
        if notes:
            row["notes"] = notes
        rows.append(row)
    return rows


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
