"""This machine's cores and main memory. It imports nothing slow."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/memory.max")
"""Where the limit of a container's memory is."""
UNKNOWN_BYTES = 8 * 2**30
"""Assumed where the system does not say how much memory there is."""


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main_memory() -> int:
    """Returns the bytes of memory of this machine, or of the container that it is."""
    if not hasattr(os, "sysconf"):
        return UNKNOWN_BYTES
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else ""
    return min(whole, int(limit)) if limit.isdecimal() else whole
