"""Devices that a run may have: their memory, and how fast they compute."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from rediffuse.costs.work import Work
from rediffuse.errors import ConfigError, did_you_mean, quoted
from rediffuse.processes.machine import main_memory, num_cores

GIB = 2**30
SHARE = 0.5
"""The assumed share of a GPU's published matrix rate that convolutions and matrix products
reach.
"""
SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
SMI_SECONDS = 10


@dataclass(frozen=True)
class Device:
    """Where networks compute.

    Attributes:
        name: As in the table, or as the driver names it.
        kind: On a CPU the processor's time adds up; a GPU computes while operations are launched.
        memory_bytes: All of its memory.
        flops: Operations per second of matrix products by precision; a core's on a CPU.
        scores: Attention weights per second; a core's on a CPU.
        bandwidth: Bytes per second that norms and activations read and write; a core's on a CPU.
        call_seconds: From the launch of one operation to the next.
        cores: Parallel lanes; 1 on a GPU.
        is_known: Whether its rates were measured, or published for this device.
    """

    name: str
    kind: Literal["cpu", "gpu"]
    memory_bytes: int
    flops: Mapping[str, float]
    scores: float
    bandwidth: float
    call_seconds: float
    cores: int = 1
    is_known: bool = True

    def seconds(self, work: Work, precision: str) -> float:
        """Returns how long one lane needs for the work."""
        computing = (
            work.flops / self.flops[precision]
            + work.scores / self.scores
            + work.bytes / self.bandwidth
        )
        launching = work.calls * self.call_seconds
        return computing + launching if self.kind == "cpu" else max(computing, launching)


def gpu(name: str, gib: float, half: float, full: float, bandwidth: float) -> Device:
    """Returns a GPU by its published rates.

    Args:
        name: A part of the driver's name for it.
        gib: Its memory.
        half: Dense bf16 and fp16 matrix TFLOP/s with fp32 sums.
        full: fp32 TFLOP/s, without TF32.
        bandwidth: GB/s.
    """
    rates = {"bf16": half * 1e12 * SHARE, "fp16": half * 1e12 * SHARE, "fp32": full * 1e12 * SHARE}
    return Device(name, "gpu", int(gib * GIB), rates, 1e13, bandwidth * 0.7e9, 10e-6)


CPU = Device(
    "cpu",
    "cpu",
    8 * GIB,
    {"fp32": 183e9, "bf16": 183e9, "fp16": 18e9},
    scores=1.85e9,
    bandwidth=2.8e9,
    call_seconds=22.8e-6,
)
"""A core of a server of 2023 with AVX-512 and one torch thread, fitted by
`benchmarks/plan.py --fit`.
"""
TABLE = [
    CPU,
    gpu("H200", 141, 989, 67, 4800),
    gpu("H100", 80, 989, 67, 3350),
    gpu("A100", 40, 312, 19.5, 1555),
    gpu("L40S", 48, 362, 91.6, 864),
    gpu("L4", 24, 121, 30.3, 300),
    gpu("A10", 24, 125, 31.2, 600),
    gpu("V100", 16, 125, 15.7, 900),
    gpu("T4", 16, 65, 8.1, 320),
    gpu("RTX 5090", 32, 209, 104.8, 1792),
    gpu("RTX 4090", 24, 165, 82.6, 1008),
    gpu("RTX 4070", 12, 58, 29.1, 504),
    gpu("RTX 3090", 24, 71, 35.6, 936),
    gpu("RTX 3060", 12, 25, 12.7, 360),
]
"""Published rates, but for the CPU's. Longer names come before those that begin them."""
OTHER_GPU = replace(gpu("another GPU", 12, 50, 20, 400), is_known=False)


def named(name: str) -> Device:
    """Returns a device of the table. Raises ConfigError if there is none of that name."""
    wanted = name.casefold().removeprefix("nvidia ").strip()
    for device in TABLE:
        if device.name.casefold() == wanted:
            return on_this_machine(None) if device is CPU else device
    names = [device.name for device in TABLE]
    raise ConfigError(
        f"--device: no device {quoted(name)} in the table; there are"
        f" {', '.join(names)}.{did_you_mean(name, names)}"
    )


def on_this_machine(name: str | None, memory_bytes: int | None = None, cores: int = 0) -> Device:
    """Returns a device of this machine.

    Args:
        name: A GPU, as its driver names it; None: the CPU.
        memory_bytes: Its memory; None: of a CPU, what this machine has; of a GPU, that of the
            table.
        cores: Of a CPU, the lanes of this process; 0: all cores that it may use.
    """
    if name is None:
        return replace(CPU, memory_bytes=memory_bytes or main_memory(), cores=cores or num_cores())
    words = name.casefold()
    known = next((each for each in TABLE[1:] if _names(each.name.casefold(), words)), OTHER_GPU)
    return replace(known, name=name, memory_bytes=memory_bytes or known.memory_bytes)


def found() -> Device:
    """Returns the first GPU of this machine, or its CPU. It needs no torch: nvidia-smi is asked."""
    if shutil.which(SMI[0]):
        said = subprocess.run(
            SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=False
        ).stdout.strip()
        name, _, mebibytes = said.partition("\n")[0].rpartition(",")
        if name and mebibytes.strip().isdecimal():
            return on_this_machine(name, int(mebibytes) * 2**20)
    return on_this_machine(None)


def _names(name: str, words: str) -> bool:
    return f" {name} " in f" {words.replace('-', ' ').replace('_', ' ')} "
