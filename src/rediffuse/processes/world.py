"""The processes of a run and their devices. The only module that imports accelerate."""

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import Tensor

from rediffuse.errors import (
    ConfigError,
    Interrupted,
    LostProcessError,
    NonFiniteError,
    RewardError,
    RunError,
)
from rediffuse.processes.cores import Lanes
from rediffuse.processes.heartbeat import Heart
from rediffuse.processes.machine import num_cores
from rediffuse.processes.signals import StopSignal
from rediffuse.terminal.output import say

Item = TypeVar("Item")
Result = TypeVar("Result")


MOST_BYTES = 300
"""The most bytes of a text that processes exchange."""
JOIN_SECONDS = 50.0
"""How long the processes have to connect at the start, unless a launcher already checks that they
do.
"""
PATIENCE = timedelta(days=1)
"""The timeout of collectives. It is long because rewards may be slow; processes that hang are
detected by their heartbeat.
"""
STALL_SECONDS = 120.0
"""The default time without progress after which a process counts as lost."""
LOST_SECONDS = 3.0
"""How long to wait, after a connection broke, for the heartbeats of the remaining processes."""

_AT_WORK = threading.Lock()
"""Only one run at a time: models are initialised with torch's global generator, and signals and
threads belong to the process.
"""


class World:
    """Rank, world size, device and worker threads of this process, and its collective operations.

    Attributes:
        stop: Records stop signals.
        heart: Exchanges heartbeats with the other processes.
        lanes: The worker threads for micro-batches.
    """

    def __init__(self, lanes: int | None = None, stall_seconds: float = STALL_SECONDS) -> None:
        wants_cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
        with _joining():
            state = PartialState(cpu=wants_cpu, timeout=PATIENCE)
        self.rank, self.size = state.process_index, state.num_processes
        self.device = str(state.device)
        self.is_main = state.is_main_process
        self.stop = StopSignal()
        self.heart = Heart(self.rank, self.size, stall_seconds, self.stop.hear)
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if self.device == "cpu":
            torch.set_num_threads(1)
        self.lanes = Lanes(lanes or (max(1, num_cores() // local) if self.device == "cpu" else 1))

    @classmethod
    @contextmanager
    def joined(cls, num_samples: int, stall_seconds: float = STALL_SECONDS) -> Iterator["World"]:
        """Connects the processes and, inside the context, exchanges heartbeats and records signals.

        Raises:
            ConfigError: torch's default dtype is not float32, or there are fewer samples than
                processes.
            RunError: This process is already training or evaluating.
        """
        if torch.get_default_dtype() != torch.float32:
            raise ConfigError(
                f"torch's default dtype is {torch.get_default_dtype()} in this process, but"
                " networks must be created in float32. Call"
                " torch.set_default_dtype(torch.float32) first; model.precision sets the"
                " precision of the networks."
            )
        if not _AT_WORK.acquire(blocking=False):
            raise RunError(
                "This process is training or evaluating already, in another thread: use a process"
                " for each run."
            )
        threads = torch.get_num_threads()
        try:
            world = cls(stall_seconds=stall_seconds)
            if num_samples < world.size:
                raise ConfigError(
                    f"prompts_per_epoch: {num_samples} samples an epoch are too few for"
                    f" {world.size} processes."
                )
            with closing(world.lanes), world.stop.noted(), world.heart.watched():
                yield world
        finally:
            torch.set_num_threads(threads)
            _AT_WORK.release()

    def share(self, num_samples: int) -> range:
        """Returns this process's sample indices; the shares of all processes differ by at most
        one.
        """
        return range(self.rank, num_samples, self.size)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Applies a function to items in the worker threads and yields the results in order."""

        def beating(item: Item) -> Result:
            self.heart.beat()
            return function(item)

        return self.lanes.map(beating, items)

    def gathered(self, values: Tensor, indices: Tensor, num_samples: int) -> Tensor:
        """Gathers values (B,) of all processes in a float64 tensor (num_samples,), each at its
        index.
        """
        whole = torch.zeros(num_samples, dtype=torch.float64)
        whole[indices] = values.double()
        return self.summed([whole])[0]

    def gathered_texts(self, texts: Sequence[str], indices: Tensor, num_samples: int) -> list[str]:
        """Gathers texts of all processes, each at its index and cut to MOST_BYTES bytes."""
        whole = torch.zeros(num_samples, MOST_BYTES, dtype=torch.uint8)
        for index, text in zip(indices.tolist(), texts, strict=True):
            raw = text.encode("utf-8", "replace")[:MOST_BYTES]
            whole[index, : len(raw)] = (
                torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else 0
            )
        return [
            bytes(row.tolist()).rstrip(b"\0").decode("utf-8", "ignore")
            for row in self.summed([whole])[0]
        ]

    def names_of_all(self, names: Iterable[str]) -> list[str]:
        """Returns the sorted union of the names of all processes."""
        mine = sorted(names)
        if self.size == 1:
            return mine
        most = torch.zeros(self.size, dtype=torch.int64)
        most[self.rank] = len(mine)
        counts = self.summed([most])[0].tolist()
        slots = torch.arange(sum(counts[: self.rank]), sum(counts[: self.rank + 1]))
        return sorted(set(self.gathered_texts(mine, slots, sum(counts)))) if sum(counts) else []

    def summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Returns the sum of each tensor over all processes."""
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([each.flatten() for each in tensors])
        on_device = flat.to(self.device)  # the backend adds tensors of this device
        with self._collective():
            torch.distributed.all_reduce(on_device)
            if on_device.is_cuda:  # there, all_reduce is asynchronous
                torch.cuda.current_stream(on_device.device).synchronize()
        flat = on_device.to(flat.device)
        return [
            part.view_as(each)
            for part, each in zip(flat.split([t.numel() for t in tensors]), tensors, strict=True)
        ]

    def stop_if_asked(self) -> None:
        """Raises Interrupted in every process if any of them received a stop signal; all must call
        it together.
        """
        self.together(self.stop_here_if_asked)

    def stop_here_if_asked(self) -> None:
        """Raises Interrupted if this process received a stop signal. For use inside `together`,
        without synchronisation.
        """
        self.heart.beat()
        if self.stop.number:
            raise Interrupted(self.stop.number)

    def together(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in every process. If it raises Interrupted, RewardError or NonFiniteError in
        any of them, all raise that class, so that none waits for another.
        """
        failure: Interrupted | RewardError | NonFiniteError | None = None
        try:
            result = work()
        except (Interrupted, RewardError, NonFiniteError) as error:
            failure = error
        seen = [isinstance(failure, kind) for kind in (Interrupted, RewardError, NonFiniteError)]
        in_doubt = isinstance(failure, NonFiniteError) and failure.of_the_policy
        counts = torch.tensor([float(each) for each in (*seen, in_doubt)])
        stopped, failed, broken, doubted = self.summed([counts])[0].tolist()
        if failure:
            raise failure
        if stopped:
            raise Interrupted(self.stop.number or signal.SIGTERM)
        if failed:
            raise RewardError("The reward failed in another process, which prints the error.")
        if broken:
            message = "Samples of another process, which prints the details, are not finite."
            raise NonFiniteError(message, of_the_policy=doubted > 0)
        return result

    def any(self, here: bool) -> bool:
        """Whether the condition holds in any process; all must call it together."""
        return self.summed([torch.tensor([float(here)])])[0].item() > 0

    def wait_for_all(self) -> None:
        """Waits until all processes have called it."""
        if self.size > 1:
            with self._collective():
                torch.distributed.barrier()

    @contextmanager
    def _collective(self) -> Iterator[None]:
        """Marks this process as waiting. If the collective inside fails, raises Interrupted after a
        stop signal, else LostProcessError.
        """
        try:
            with self.heart.waiting():
                yield
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except RuntimeError as error:
            if self.stop.number:
                raise Interrupted(self.stop.number) from error
            time.sleep(LOST_SECONDS)
            raise LostProcessError(
                f"The connection to another process is lost ({str(error).partition(chr(10))[0]});"
                f" the one that has been silent longest is {self.heart.most_silent()}. Resume"
                " with: rediffuse resume RUN"
            ) from error

    def peak_memory_bytes(self) -> int:
        """The peak memory use of this process: GPU memory on CUDA, else main memory."""
        if self.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == "darwin" else 1024
        )


@contextmanager
def _joining() -> Iterator[None]:
    """Ends the process if the others that the environment announces do not connect; raises
    ConfigError if it is incomplete.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    variables = (
        f"The environment says that this is one of WORLD_SIZE={size} processes"
        f" (RANK={os.environ.get('RANK', 'not set')},"
        f" MASTER_ADDR={os.environ.get('MASTER_ADDR', 'not set')}), but the others"
    )
    cure = (
        "Start all of them with torchrun, or unset these variables (env -u WORLD_SIZE -u RANK"
        " …) to train in one."
    )

    def give_up() -> None:
        say(f"{variables} did not come within {JOIN_SECONDS:g} seconds. {cure}")
        os._exit(ConfigError.exit_code)

    timer = threading.Timer(JOIN_SECONDS, give_up)
    timer.daemon = True
    if size != "1" and "TORCHELASTIC_RUN_ID" not in os.environ:
        timer.start()
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if size == "1":
            raise
        raise ConfigError(
            f"{variables} cannot be reached: {str(error).partition(chr(10))[0]} {cure}"
        ) from error
    finally:
        timer.cancel()
