"""Passes that fit the memory: rows are halved where a device runs out of it."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import TypeVar

import torch
from torch import Tensor

from rediffuse.errors import RunError
from rediffuse.terminal.output import say

Result = TypeVar("Result")


def even_parts(rows: Tensor, size: int) -> list[Tensor]:
    """Splits rows (N,) into the fewest parts of at most `size`, whose lengths differ by at most
    one; no parts if there are no rows.
    """
    return list(rows.tensor_split(-(-len(rows) // size))) if len(rows) else []


@dataclass
class RowLimit:
    """How many rows one forward pass takes. Worker threads share it.

    Attributes:
        passes: What the passes do, for messages.
        rows: The number of rows; at least 1.
    """

    passes: str
    rows: int
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def over(self, work: Callable[[Tensor], Result], rows: Tensor) -> Iterator[Result]:
        """Yields the results of `work` for even parts of the rows, in order.

        A part that does not fit the device's memory is halved and done again, and so are all that
        follow.

        Args:
            work: Takes a part of the rows. It must change nothing before the memory that it needs
                is allocated.
            rows: Shape (N,).

        Raises:
            RunError: A single row does not fit.
        """
        waiting = even_parts(rows, self.rows)
        while waiting:
            part, *others = even_parts(waiting.pop(0), self.rows)
            waiting = [*others, *waiting]
            try:
                result = work(part)
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise self._too_large(error) from error
            else:
                yield result
                continue
            # here, since until the handler ends the error holds the tensors of the failed pass
            self._halve(len(part))
            waiting = [part, *waiting]

    def _halve(self, rows: int) -> None:
        with self._lock:
            self.rows = min(self.rows, rows // 2)
        say(f"The device is out of memory: {self.passes} goes on with {self.rows} rows a pass.")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _too_large(self, error: torch.OutOfMemoryError) -> RunError:
        return RunError(
            f"The device has too little memory for one row of {self.passes}"
            f" ({str(error).partition(chr(10))[0][:200]}). Set --model.gradient-checkpointing true,"
            " --model.precision bf16 or a smaller --model.size-pixels, or use a device with more"
            " memory."
        )


@dataclass(frozen=True)
class RowLimits:
    """The rows of the passes of a run, by what they do."""

    sampling: RowLimit
    decoding: RowLimit
    training: RowLimit

    @classmethod
    def of(cls, rows_for: Callable[[str], int]) -> "RowLimits":
        """Returns the limits with the rows that a function gives for each kind of pass."""
        return cls(*(RowLimit(each.name, rows_for(each.name)) for each in fields(cls)))

    def rows(self) -> dict[str, int]:
        """Returns the present number of rows of each kind of pass."""
        return {each.name: getattr(self, each.name).rows for each in fields(self)}
