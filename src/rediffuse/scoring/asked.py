"""Batches of samples that wait for their rewards, with their failed attempts."""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from rediffuse.errors import RewardError, Status
from rediffuse.scoring.journal import Scored
from rediffuse.scoring.judging import REASON
from rediffuse.types import Prompt

Item = TypeVar("Item")

LONGEST_PAUSE_SECONDS = 30.0
"""The longest pause between two attempts."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A batch of samples that waits for its rewards.

    Attributes:
        images: The samples, shape (B, *S).
        prompts: The prompt of each sample.
        indices: The number of each sample in the epoch.
        place: The position of each sample among those of this process.
        attempts: How many attempts failed.
        status: The status of the last failure.
        reason: The message of the last failure.
        not_before: The `time.monotonic` of the next attempt at the earliest.
    """

    images: Tensor
    prompts: Sequence[Prompt]
    indices: Sequence[int]
    place: Sequence[int]
    attempts: int = 0
    status: Status = "ok"
    reason: str = ""
    not_before: float = 0.0

    def only(self, rows: Sequence[int]) -> "Asked":
        """Returns the batch of the samples in some rows."""

        def chosen(each: Sequence[Item]) -> list[Item]:
            return [each[i] for i in rows]

        images = self.images[list(rows)]
        return replace(
            self,
            images=images,
            prompts=chosen(self.prompts),
            indices=chosen(self.indices),
            place=chosen(self.place),
        )

    def again(self, error: RewardError) -> "Asked":
        """Returns the batch after another failure, to be retried after an exponentially growing
        pause with full jitter.
        """
        pause = random.uniform(0, min(LONGEST_PAUSE_SECONDS, 0.5 * 2**self.attempts))
        later = time.monotonic() + pause
        return replace(
            self,
            attempts=self.attempts + 1,
            status=error.status,
            reason=str(error),
            not_before=later,
        )

    def lost(self) -> list[Scored]:
        """Returns the samples without rewards, each with the status and the reason of the last
        failure.
        """
        notes = {REASON: self.reason}
        return [
            Scored(index, 0, math.nan, self.status, self.attempts, notes=notes)
            for index in self.indices
        ]
