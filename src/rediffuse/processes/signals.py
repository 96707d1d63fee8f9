"""SIGTERM and Ctrl-C: the first asks a run to stop in good order, the second ends the process."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT)
SAME_SIGNAL_SECONDS = 1.0


class StopSignal:
    """Notes that this process, or another one of its world, was asked to stop.

    Attributes:
        number: The signal that asked; 0 until one does.
    """

    def __init__(self) -> None:
        self.number = 0
        self._noted = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside, a signal only sets `number`. Signals reach the main thread alone: in any other,
        nothing changes.
        """
        here = threading.current_thread() is threading.main_thread()
        before = {number: signal.signal(number, self._note) for number in STOPS} if here else {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hear(self, number: int) -> None:
        """Takes over a signal that another process was sent, so that none has to wait for that
        process to say so.
        """
        self.number = self.number or number

    def _note(self, number: int, _: FrameType | None) -> None:
        """What comes within SAME_SIGNAL_SECONDS is the same request: a launcher forwards what its
        processes were sent as well.
        """
        if self._noted:
            return
        self._noted = True
        self.number = number
        time.sleep(SAME_SIGNAL_SECONDS)  # Python calls this again, for other signals, meanwhile
        for each in STOPS:
            signal.signal(each, signal.SIG_DFL)
