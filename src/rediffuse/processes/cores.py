"""Micro-batches side by side, on the cores of a CPU."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Runs micro-batches side by side, each in one torch thread.

    For small networks that is faster than one micro-batch on many threads, and as fast as a process
    per core (benchmarks/lanes.py). The number of lanes never changes a result.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        # of each lane, whatever a reward asks of torch while a lane starts
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            number, initializer=torch.set_num_threads, initargs=(threads,)
        )

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yields the results in the order of the items; it works at most a few items ahead of its
        reader.

        It raises what `function` raises; a StopIteration becomes a RuntimeError, as in any
        generator, and ends no epoch.
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
        """Ends the threads, once what they have begun is done."""
        self._pool.shutdown(cancel_futures=True)


def num_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
