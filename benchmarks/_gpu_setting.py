"""What benchmarks/gpu.py measures, and how time and memory are read on its device."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import _meter

GIGABYTE = 1e9


@dataclass(frozen=True)
class Setting:
    """What is measured, and where.

    Attributes:
        name: Of the setting, in the lines of the file.
        device: cpu or cuda.
        model: The options of the model, as in a run's configuration.
        folder: For the pipeline and other files.
        rows: Rows of a forward pass, rising; variants of the network use the last but one.
        steps: Denoising steps that are measured.
        matmul_side: Of the largest square matrices.
        epochs: Of each measurement of the loop; the first warms up.
        repeats: Of each call that is timed, after two that warm up.
    """

    name: str
    device: str
    model: Mapping[str, Any]
    folder: Path
    rows: Sequence[int] = (1, 4, 8, 16)
    steps: int = 10
    matmul_side: int = 8192
    epochs: int = 3
    repeats: int = 5

    @property
    def precision(self) -> str:
        return str(self.model.get("precision", "fp32"))

    def clock(self) -> float:
        """Returns the time in seconds after all work on the device."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, call: Callable[[], Any]) -> float:
        """Returns the median duration of a call."""
        each = []
        for _ in range(self.repeats + 2):
            began = self.clock()
            call()
            each.append(self.clock() - began)
        return median(each[2:])

    def forget_peak(self) -> None:
        if self.device == "cpu":
            _meter.forget_peak()
        else:
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> dict[str, float]:
        """Returns the peak memory in gigabytes: of the GPU, or of this process."""
        if self.device == "cpu":
            return {"peak_host_gigabytes": _meter.peak_bytes() / GIGABYTE}
        return {
            "peak_allocated_gigabytes": torch.cuda.max_memory_allocated() / GIGABYTE,
            "peak_reserved_gigabytes": torch.cuda.max_memory_reserved() / GIGABYTE,
        }
