"""Heartbeats between the processes of a run, outside their collectives, so that none waits for a
process that hangs.
"""

import json
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, but not listed

from rediffuse.errors import LostProcessError
from rediffuse.terminal.output import say

LONGEST_SECONDS = 3600.0
"""The longest duration of an operation without progress reports: loading a model, writing a
checkpoint or report.
"""
GRACE_SECONDS = 5.0
"""How long after a signal a process that waits in a collective may still stop regularly."""
RESCUE_SECONDS = 60.0
"""How long the state of the last completed epoch may take to save before a process is ended."""
LEAVING_SECONDS = 5.0
"""How long to wait for each of the threads at the end."""


@dataclass(frozen=True)
class Word:
    """The heartbeat message of a process.

    Attributes:
        beats: Counts completed work.
        alive: Increases while the process waits or runs one long operation.
        waits: Whether the process waits in a collective.
        phase: What it works on.
        asked: The number of the stop signal that it received, or 0.
        where: Its process id and machine.
    """

    beats: int = 0
    alive: int = 0
    waits: bool = False
    phase: str = "starting"
    asked: int = 0
    where: str = "unknown"


class Heart:
    """The heartbeat of a process. One thread exchanges messages with the other processes, another
    checks them.

    Args:
        rank: The number of this process.
        size: The number of processes.
        stall_seconds: The time without progress after which a process counts as lost.
        hear: Called with the number of a stop signal that another process received.

    Attributes:
        rescue: Saves the last completed epoch; called from a thread before the process is ended,
            unless `saving` is held.
        saving: A lock to hold while saving.
    """

    _runs = 0

    def __init__(
        self,
        rank: int,
        size: int,
        stall_seconds: float,
        hear: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.rank, self.size, self.stall_seconds, self._hear = rank, size, stall_seconds, hear
        self.rescue: Callable[[], None] = lambda: None
        self.saving = threading.RLock()
        self._ending = threading.RLock()
        self._where = f"pid {os.getpid()} on {platform.node()}"
        self._phase, self._beats, self._alive = "starting", 0, 0
        self._busy_since: float | None = None
        self._waiting_since: float | None = None
        self._signal: tuple[int, float] | None = None
        self._left = threading.Event()
        self._known: dict[int, tuple[Word, float]] = {}
        self._exchanged = self._progressed = 0.0
        self._broken = ""

    def beat(self, phase: str | None = None) -> None:
        """Counts completed work; `phase` names what is worked on from now on."""
        self._beats += 1
        self._phase = phase or self._phase

    @contextmanager
    def busy(self, phase: str) -> Iterator[None]:
        """Inside the context, one long operation counts as progress as long as the process runs."""
        before, self._busy_since = (self._phase, self._busy_since), time.monotonic()
        self.beat(phase)
        try:
            yield
        finally:
            self._phase, self._busy_since = before
            self.beat()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the context, this process counts as waiting for the others."""
        self.beat()
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            with self._ending:  # work must not continue while the process is being ended
                self._waiting_since = None
            self.beat()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside the context, the process ends if one of the run makes no progress for
        `stall_seconds`, or on a signal while it waits for another.
        """
        if self.size == 1:
            yield
            return
        Heart._runs += 1
        self._forgive(time.monotonic())
        hears, told = socket.socketpair()
        for each in (hears, told):
            each.setblocking(False)
        # Python's signal handlers do not run during a collective, but the wakeup fd is written.
        on_main = threading.current_thread() is threading.main_thread()
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False) if on_main else -1
        threads = [
            threading.Thread(target=self._talk, daemon=True),
            threading.Thread(target=self._judge, args=(hears,), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._left.set()
            # a thread that still uses the store at interpreter exit would abort the process
            for thread in threads:
                thread.join(LEAVING_SECONDS)
            if on_main:
                signal.set_wakeup_fd(before)
            hears.close()
            told.close()

    def most_silent(self) -> str:
        """Returns the name of the other process whose last progress is longest ago."""
        return self.name(
            min(
                (rank for rank in self._known if rank != self.rank),
                key=lambda rank: self._known[rank][1],
            )
        )

    def name(self, rank: int) -> str:
        """Returns a description of a process for messages."""
        word = self._known[rank][0]
        return (
            f"process {rank + 1} of {self.size} (rank {rank}, {word.where}, last phase:"
            f" {word.phase})"
        )

    @property
    def _tick(self) -> float:
        return min(1.0, self.stall_seconds / 8)

    def _talk(self) -> None:
        """Exchanges messages through the store that the processes connected to."""
        try:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = TCPStore(
                address, port, is_master=False, timeout=timedelta(seconds=self.stall_seconds)
            )
            over = False
            while not over:
                over = self._left.wait(self._tick)
                store.set(self._key(self.rank), json.dumps(asdict(self._own_word())))
                for rank in range(self.size):
                    if rank != self.rank and store.check([self._key(rank)]):
                        self._take(rank, Word(**json.loads(store.get(self._key(rank)))))
                self._exchanged = time.monotonic()
        except Exception as error:  # of any kind; `_judge` reports it
            self._broken = f" ({type(error).__name__}: {str(error).partition(chr(10))[0]})"

    def _key(self, rank: int) -> str:
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return f"rediffuse/heart/{restart}/{Heart._runs}/{rank}"

    def _own_word(self) -> Word:
        waits, busy_since = self._waiting_since is not None, self._busy_since
        self._alive += waits or (
            busy_since is not None and time.monotonic() - busy_since < LONGEST_SECONDS
        )
        return Word(
            self._beats,
            self._alive,
            waits,
            self._phase,
            self._signal[0] if self._signal else 0,
            self._where,
        )

    def _take(self, rank: int, word: Word) -> None:
        now, (last, changed) = time.monotonic(), self._known[rank]
        if word.asked and not last.asked:
            self._hear(word.asked)
        if word.beats != last.beats or not word.waits:
            self._progressed = now
        self._known[rank] = (
            word,
            changed if (word.beats, word.alive) == (last.beats, last.alive) else now,
        )

    def _judge(self, signals: socket.socket) -> None:
        """Checks all processes, without any call that could block."""
        before = time.monotonic()
        while not self._left.wait(self._tick):
            now = time.monotonic()
            if now - before > self.stall_seconds / 2:  # this process itself was suspended
                self._forgive(now)
            before = now
            with suppress(BlockingIOError):
                asked = [
                    each for each in signals.recv(64) if each in (signal.SIGTERM, signal.SIGINT)
                ]
                self._signal = (asked[-1], now) if asked else self._signal
            self._take(self.rank, self._own_word())
            self._end_if_due(now)

    def _forgive(self, now: float) -> None:
        self._exchanged = self._progressed = now
        self._known = {
            rank: (self._known.get(rank, (Word(), now))[0], now) for rank in range(self.size)
        }
        self._waiting_since = None if self._waiting_since is None else now

    def _end_if_due(self, now: float) -> None:
        seconds, since = self.stall_seconds, self._waiting_since
        if since is not None and self._signal and now - max(since, self._signal[1]) > GRACE_SECONDS:
            number = self._signal[0]
            self._end(
                128 + number, f"stopped by signal {number} while waiting for {self.most_silent()}."
            )
        deaf = now - self._exchanged > seconds / 2
        for rank, (_, changed) in self._known.items():
            if now - changed > seconds and rank == self.rank:
                self._stalled(self.name(rank))
            if now - changed > seconds and since is not None:
                store = (
                    "the TCP store of the processes, at the launcher or at"
                    f" {self.name(0)}{self._broken},"
                )
                self._stalled(store if deaf else self.name(rank))
        fresh = all(now - changed < seconds / 2 for _, changed in self._known.values())
        if fresh and since is not None and now - max(since, self._progressed) > seconds:
            self._stalled("every process waits for the others, and each of them")

    def _stalled(self, who: str) -> None:
        self._end(
            LostProcessError.exit_code,
            f"{who} has made no progress for {self.stall_seconds:g} seconds, so all processes"
            " exit. If it was only slow, raise stall_seconds: in config.yaml of the run, or as"
            " --stall-seconds of a new one. Resume with: rediffuse resume RUN",
        )

    def _end(self, code: int, message: str) -> None:
        with self._ending:
            say(f"{message[0].upper()}{message[1:]}")
            saving = threading.Thread(target=self._rescue, daemon=True)
            saving.start()
            saving.join(RESCUE_SECONDS)
            os._exit(code)

    def _rescue(self) -> None:
        # the process hangs in saving, which may be the reason why it is ended
        if not self.saving.acquire(blocking=False):
            return
        try:
            self.rescue()
        except Exception as error:
            say(
                "The state after the last completed epoch could not be saved:"
                f" {type(error).__name__}: {error}"
            )
