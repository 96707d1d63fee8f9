"""Samples for which a reward was asked, and what became of the asking."""

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
"""Between two tries."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Images that wait for their rewards. place: among this process's samples
    attempts: that failed already, the last one with that status and for that reason.
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
        """Returns the same for some of its samples."""

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
        """Later, with full jitter."""
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
        """Returns its samples without rewards, each with the status of the failure."""
        notes = {REASON: self.reason}
        return [
            Scored(index, 0, math.nan, self.status, self.attempts, notes=notes)
            for index in self.indices
        ]
