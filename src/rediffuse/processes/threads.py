"""Daemon threads for foreign code, such as rewards: calls never block interpreter exit, and
process-wide state is restored.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from rediffuse.deferred import torch

Result = TypeVar("Result")
Queue = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class Pool:
    """A pool of daemon threads, which starts calls in the order of submission.

    Args:
        size: The number of threads.
    """

    def __init__(self, size: int) -> None:
        self._queue: Queue = SimpleQueue()
        self._size, self._stopped = size, False
        for _ in range(size):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, call: Callable[[], Result]) -> Future[Result]:
        """Queues a call and returns the future of its result."""
        future: Future[Result] = Future()
        self._queue.put((future, call))
        return future

    def stop(self) -> None:
        """Discards the calls that have not started."""
        self._stopped = True
        for _ in range(self._size):
            self._queue.put(None)

    def _work(self) -> None:
        while (item := self._queue.get()) and not self._stopped:
            _settle(*item)


class Abandoned(Exception):
    """A call exceeded its time limit. It may still be running, on a thread that is not used any
    more.
    """


class Caller:
    """Makes the calls of a run's rewards one after another on one thread, which lasts until a call
    is abandoned or the Caller is deleted.

    Thread-local state of a reward, such as a client, an SQLite connection or an event loop,
    therefore lasts for the run.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._queue: Queue | None = None

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Queues a call and returns its future; the first call starts the thread."""
        if self._queue is None:
            self._queue = SimpleQueue()
            weakref.finalize(self, self._queue.put, None)
            threading.Thread(target=_work_alone, args=(self._queue,), daemon=True).start()
        future: Future[Result] = Future()
        self._queue.put((future, work))
        return future

    def call(self, work: Callable[[], Result], seconds: float | None = None) -> Result:
        """Makes a call and waits for its result.

        Args:
            work: The call.
            seconds: The time limit; None: no limit.

        Raises:
            Abandoned: The time limit was exceeded. The next call uses a new thread.
        """
        with self._turn, undisturbed():
            future = self.submit(work)
            wait([future], seconds)
            if not future.done():
                self.close()
                raise Abandoned
        return future.result()

    def close(self) -> None:
        """Ends the thread after the calls that are queued; a later call starts a new one."""
        if self._queue is not None:
            self._queue.put(None)
            self._queue = None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restores process-wide and thread-local settings on exit: the working directory, and torch's
    default dtype, gradient mode, matmul precision and number of threads.
    """
    before = [read() for read, _ in AMBIENT]
    try:
        yield
    finally:
        for (read, write), value in zip(AMBIENT, before, strict=True):
            if read() != value:
                write(value)


def _working_directory() -> str:
    """Returns the working directory; empty if it has been deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _go_back(folder: str) -> None:
    with suppress(FileNotFoundError):  # it has been removed
        os.chdir(folder)


AMBIENT: Sequence[tuple[Callable[[], Any], Callable[[Any], Any]]] = (
    (_working_directory, _go_back),
    (lambda: torch.get_default_dtype(), lambda dtype: torch.set_default_dtype(dtype)),
    (lambda: torch.is_grad_enabled(), lambda enabled: torch.set_grad_enabled(enabled)),
    (
        lambda: torch.get_float32_matmul_precision(),
        lambda precision: torch.set_float32_matmul_precision(precision),
    ),
    (lambda: torch.get_num_threads(), lambda number: torch.set_num_threads(number)),
)
"""Pairs of functions that read and restore a setting; they import torch when they are called."""


def _work_alone(queue: Queue) -> None:
    """Runs queued calls on a thread with an event loop, for rewards that use asyncio."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    while item := queue.get():
        future, call = item
        _settle(future, partial(_undisturbed, call))
        del item, future, call  # frees the images of the call before the next one
    loop.close()


def _undisturbed(call: Callable[[], Result]) -> Result:
    """Returns what a call returns, after the process's state was restored: whoever waits for the
    result may change that state at once, as loading a model does.
    """
    with undisturbed():
        return call()


def _settle(future: Future[Result], call: Callable[[], Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # raised again where the result is read
        future.set_exception(error)
