"""CPU seconds and memory of this process, and the machine that it runs on; the standard library
alone, so that every environment can import it.
"""

import os
import platform
import resource
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
RESET_PEAK = Path("/proc/self/clear_refs")
PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process so far, of all threads, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def use_one_core() -> None:
    """Restricts this process to one core, the last that it may use, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def resident_bytes() -> int:
    """Returns the main memory that this process uses now; its peak where the system tells no
    more.
    """
    return _of_status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """Returns the peak of this process's main memory since `forget_peak`, or since its start."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _of_status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Lets `peak_bytes` begin anew, where the system can."""
    if RESET_PEAK.exists():
        RESET_PEAK.write_text("5")


def _of_status(field: str) -> int:
    if not STATUS.exists():
        return 0
    lines = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Returns the processor, the number of cores, the memory and the versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gigabytes": round(memory / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def _processor() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
