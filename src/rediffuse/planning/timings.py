"""Measured seconds of passes, and the rows that they favour."""

from collections.abc import Mapping
from dataclasses import dataclass, field

GOOD_ENOUGH = 1.1
"""The fewest rows are taken that need at most so many times the seconds of the best, by row."""


@dataclass(frozen=True)
class Timings:
    """Measured passes.

    Attributes:
        seconds: By kind, the seconds of a pass by its rows.
    """

    seconds: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, int]:
        """The rows of each kind of pass, by what was measured."""
        return {kind: fewest_good(found) for kind, found in self.seconds.items() if found}

    def at(self, kind: str, rows: int) -> float:
        """Returns the seconds of a pass of so many rows, in proportion to the nearest measured."""
        found = self.seconds[kind]
        near = min(found, key=lambda each: abs(each - rows))
        return found[near] * rows / near


def fewest_good(seconds: Mapping[int, float]) -> int:
    """Returns the fewest rows whose seconds by row are near the best.

    Args:
        seconds: Seconds of a pass by its rows; not empty.
    """
    best = min(each / rows for rows, each in seconds.items())
    return min(rows for rows, each in seconds.items() if each / rows <= GOOD_ENOUGH * best)
