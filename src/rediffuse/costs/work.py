"""Amounts of computation: what one pass through a network does for one row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What has to be computed. Sums and multiples of it are work again.

    Attributes:
        flops: Floating-point operations of convolutions, matrix products and attention; a
            multiplication and an addition are two.
        scores: The number of attention weights, whose exponentials take longer than their share of
            `flops` where heads are narrow.
        bytes: What operations of other kinds (norms, activations, sums) read and write.
        calls: The number of operations that are launched; it does not grow with the rows.
    """

    flops: float = 0.0
    scores: float = 0.0
    bytes: float = 0.0
    calls: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.flops + other.flops,
            self.scores + other.scores,
            self.bytes + other.bytes,
            self.calls + other.calls,
        )

    def of(self, rows: float) -> "Work":
        """Returns the work of one pass of so many rows."""
        return Work(self.flops * rows, self.scores * rows, self.bytes * rows, self.calls)

    def times(self, passes: float) -> "Work":
        """Returns the work of so many passes."""
        return Work(
            self.flops * passes, self.scores * passes, self.bytes * passes, self.calls * passes
        )
