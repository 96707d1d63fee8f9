"""SIGTERM and Ctrl-C: the first requests the run to save and stop, the second ends the process."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT)
SAME_SIGNAL_SECONDS = 1.0
"""Signals within this time after the first belong to the same request."""


class StopSignal:
    """Records whether this process or another one of the run received a stop signal.

    Attributes:
        number: The number of the first signal; 0 if there was none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._noted = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside the context, the first signal only sets `number`. Without effect outside the main
        thread, which alone receives signals.
        """
        here = threading.current_thread() is threading.main_thread()
        before = {number: signal.signal(number, self._note) for number in STOPS} if here else {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hear(self, number: int) -> None:
        """Records a signal that another process received, so that this one need not wait for it to
        stop.
        """
        self.number = self.number or number

    def _note(self, number: int, _: FrameType | None) -> None:
        """Ignores signals within SAME_SIGNAL_SECONDS: a launcher forwards what its processes also
        received directly.
        """
        if self._noted:
            return
        self._noted = True
        self.number = number
        time.sleep(SAME_SIGNAL_SECONDS)  # meanwhile, Python calls this handler for further signals
        for each in STOPS:
            signal.signal(each, signal.SIG_DFL)
