"""Calls of foreign code on threads that neither keep the process from ending nor change the state
that it shares.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Queue = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class Pool:
    """`size` calls at a time, begun in the order they came."""

    def __init__(self, size: int) -> None:
        self._queue: Queue = SimpleQueue()
        self._size, self._stopped = size, False
        for _ in range(size):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, call: Callable[[], Result]) -> "Future[Result]":
        """Queues a call; its result or its exception comes through the future."""
        future: Future[Result] = Future()
        self._queue.put((future, call))
        return future

    def stop(self) -> None:
        """What has not begun never will."""
        self._stopped = True
        for _ in range(self._size):
            self._queue.put(None)

    def _work(self) -> None:
        while (item := self._queue.get()) and not self._stopped:
            _settle(*item)


class Abandoned(Exception):
    """A call took longer than it was given. It may still be running, on a thread that nothing else
    uses any more.
    """


class Caller:
    """Makes the calls of a run's rewards in turn, on one thread that lasts until a call is
    abandoned or the Caller is gone.

    What a reward keeps for its thread is therefore kept for the run: a client, an SQLite
    connection, an event loop.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._queue: Queue | None = None

    def submit(self, work: Callable[[], Result]) -> "Future[Result]":
        """The first call starts the thread."""
        if self._queue is None:
            self._queue = SimpleQueue()
            weakref.finalize(self, self._queue.put, None)
            threading.Thread(target=_work_alone, args=(self._queue,), daemon=True).start()
        future: Future[Result] = Future()
        self._queue.put((future, work))
        return future

    def call(self, work: Callable[[], Result], seconds: float | None = None) -> Result:
        """What `work` returns or raises. Raises Abandoned after that many seconds; the next call
        then has a new thread.
        """
        with self._turn, undisturbed():
            future = self.submit(work)
            wait([future], seconds)
            if not future.done():
                self.close()
                raise Abandoned
        return future.result()

    def close(self) -> None:
        """The thread ends after the calls that it was given; a later call starts another one."""
        if self._queue is not None:
            self._queue.put(None)
            self._queue = None


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restores at the end what foreign code may change for the whole process or its thread: the
    working directory, and torch's default dtype, gradients, precision and number of threads.
    """
    before = [read() for read, _ in AMBIENT]
    try:
        yield
    finally:
        for (read, write), value in zip(AMBIENT, before, strict=True):
            if read() != value:
                write(value)


def _working_directory() -> str:
    """Empty where it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def _go_back(folder: str) -> None:
    with suppress(FileNotFoundError):  # it has been removed
        os.chdir(folder)


AMBIENT: Sequence[tuple[Callable[[], Any], Callable[[Any], Any]]] = (
    (_working_directory, _go_back),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_num_threads, torch.set_num_threads),
)


def _work_alone(queue: Queue) -> None:
    """With an event loop, for rewards that use asyncio."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    while item := queue.get():
        with undisturbed():
            _settle(*item)
        del item  # so that the images of a call are not kept until the next one
    loop.close()


def _settle(future: "Future[Result]", call: Callable[[], Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # whoever asks for the result is told
        future.set_exception(error)
