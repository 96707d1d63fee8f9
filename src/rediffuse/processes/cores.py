"""Parallel micro-batches on the cores of a CPU."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Worker threads ("lanes") that run micro-batches in parallel, each with one torch thread.

    For small networks this is faster than one micro-batch on many threads, and as fast as one
    process for each core (benchmarks/lanes.py). Results do not depend on the number of lanes.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        # read here, since a reward may change torch's setting while the threads start
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            number, initializer=torch.set_num_threads, initargs=(threads,)
        )

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yields the results in the order of the items, computing at most 2 * number + 1 items
        ahead.

        It raises what `function` raises, except that a StopIteration becomes a RuntimeError, as in
        any generator.
        """
        if self.number == 1:
            return (function(item) for item in items)
        return self._side_by_side(function, items)

    def _side_by_side(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                begun.append(self._pool.submit(function, item))
                if len(begun) > 2 * self.number:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()

    def close(self) -> None:
        """Ends the threads after the items that have started."""
        self._pool.shutdown(cancel_futures=True)
