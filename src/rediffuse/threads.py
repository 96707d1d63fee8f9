"""Calls on threads that do not keep the process from ending, however long they last."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class Pool:
    """`size` calls at a time, begun in the order they came."""

    def __init__(self, size: int) -> None:
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._size, self._stopped = size, False
        for _ in range(size):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, call: Callable[[], Result]) -> "Future[Result]":
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


def apart(call: Callable[[], Result]) -> "Future[Result]":
    """At once, on a thread of its own, which may be left behind."""
    future: Future[Result] = Future()
    threading.Thread(target=_settle, args=(future, call), daemon=True).start()
    return future


def _settle(future: "Future[Result]", call: Callable[[], Result]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # whoever asks for the result is told
        future.set_exception(error)
