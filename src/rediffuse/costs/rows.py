"""The rule that chooses how many rows a forward pass takes, and whether one pass serves both
sampling and the first update.

It is deterministic: it depends on shapes, on the size of the memory and on the kind of device, but
not on any measured time. Part of a pass's cost, launching its operations, does not grow with the
rows, so more rows are faster, up to a knee. Rows are further limited by the memory of all lanes.
"""

from math import ceil, floor, log2

from rediffuse.config.schema import DEFAULT_ROWS, Rows
from rediffuse.costs.architecture import Architecture
from rediffuse.costs.devices import GIB, Device
from rediffuse.costs.tape import FULL
from rediffuse.costs.work import Work
from rediffuse.costs.workload import Workload

OVERHEAD = 0.12
"""The share of a CPU's time that launching operations may take."""
SATURATION = 3.0
"""How many times longer than launching a GPU should compute in a pass."""
FILLED = 0.8
"""How full the passes of those samples are, on average, that learn from a step while they are
sampled: their number varies from step to step, and a part that is too large is split.
"""
MOST_ROWS = 256
ROUNDING = 0.75
"""Of the exponent of the rows: a knee at 1.2 rows is 2, since too few cost more than too many."""
FREE_BYTES = 32 * 2**20
"""Decoding takes at least as many rows as fit here, since rewards are computed for what is decoded
together.
"""
MOST_FREE_ROWS = 16
CPU_BYTES = GIB
"""The most bytes of activations of all lanes of a CPU, and of per-sample gradients on it."""
CPU_SHARE = 0.5
"""The share of a machine's memory that these may take if that is less."""
GPU_SHARE = 0.8
"""The share of a GPU's memory that is planned with; allocators and libraries need the rest."""
GPU_HOST_SHARE = 0.25
"""The share of the main memory that per-sample gradients may take beside a GPU."""


def choose(
    architecture: Architecture | None, device: Device, workload: Workload, *, one_pass: bool = False
) -> Rows:
    """Returns the rows of each kind of pass; DEFAULT_ROWS of a model whose costs are unknown.

    Args:
        architecture: The model's costs.
        device: Where it computes.
        workload: What this process does.
        one_pass: Whether sampling computes gradients too: of the samples that advance together,
            those that learn from a step then take it in passes of training's size.
    """
    if architecture is None:
        return Rows(DEFAULT_ROWS, DEFAULT_ROWS, DEFAULT_ROWS)
    budget = activation_bytes(architecture, device, workload) / device.cores
    training_bytes = architecture.training_bytes()
    sampling_bytes = architecture.sampling_bytes
    few = FILLED * workload.num_steps / workload.trained_steps
    together = max(1.0, few) if one_pass else 1.0
    decoding_bytes = architecture.decoding_bytes
    free = min(MOST_FREE_ROWS, fitting(decoding_bytes, FREE_BYTES))

    def rows(work: Work, row_bytes: int, number: int, least: int = 1, times: float = 1) -> int:
        wanted = max(least, int(times * knee(work, device, architecture.precision)))
        return even(min(wanted, fitting(row_bytes, budget)), number, device.cores)

    return Rows(
        sampling=rows(architecture.sampling(1), sampling_bytes, workload.samples, times=together),
        decoding=rows(architecture.decoding(1), decoding_bytes, workload.samples, free),
        training=rows(architecture.training(1), training_bytes, workload.rows_per_update),
    )


def knee(row: Work, device: Device, precision: str) -> int:
    """Returns the power of two of rows at which a pass is about as fast by row as it can be.

    Args:
        row: The work of a pass of one row.
        device: Where it computes.
        precision: Of the network.
    """
    launching = row.calls * device.call_seconds
    computing = device.seconds(Work(row.flops, row.scores, row.bytes), precision)
    if not computing:
        return MOST_ROWS
    wanted = launching / computing * (1 / OVERHEAD if device.kind == "cpu" else SATURATION)
    exponent = floor(log2(wanted) + ROUNDING) if wanted else 0
    return int(min(MOST_ROWS, 2 ** max(0, exponent)))


def fitting(row_bytes: int, budget: float) -> int:
    """Returns how many rows fit; at least 1, since fewer cannot be tried."""
    return max(1, int(budget / row_bytes)) if row_bytes else MOST_ROWS


def even(rows: int, number: int, lanes: int) -> int:
    """Returns the rows of even parts, whose number is a multiple of the lanes.

    Args:
        rows: The most rows of a part.
        number: How many rows there are in all.
        lanes: How many parts are computed at a time.
    """
    parts = ceil(ceil(number / rows) / lanes) * lanes
    return max(1, ceil(number / parts))


def activation_bytes(architecture: Architecture, device: Device, workload: Workload) -> float:
    """Returns the bytes that the activations of all lanes may take."""
    if device.kind == "cpu":
        return min(CPU_BYTES, CPU_SHARE * device.memory_bytes)
    return max(0.0, GPU_SHARE * device.memory_bytes - fixed_bytes(architecture, workload))


def fixed_bytes(architecture: Architecture, workload: Workload) -> int:
    """Returns the bytes on the networks' device that do not depend on the rows."""
    weights = architecture.weights
    copies = weights["network"] if workload.loads_twice else 0
    return sum(weights.values()) + copies + architecture.optimizer_bytes


def gradient_bytes(architecture: Architecture, workload: Workload) -> int:
    """Returns the bytes of the gradients of each sample of the first update, on the host."""
    return workload.first_update_samples * architecture.network.trained * FULL


def takes_one_pass(
    architecture: Architecture | None, device: Device, workload: Workload, host_bytes: int
) -> bool:
    """Whether the first update uses gradients that are computed while sampling.

    Two passes take a forward pass of every step, and three times that for every trained row; one
    pass saves the forward pass of the trained rows. It is never slower, so memory decides.

    Args:
        architecture: The model's costs; None: they are unknown, so memory cannot be checked.
        device: Where it computes.
        workload: What this process does.
        host_bytes: The main memory.
    """
    if architecture is None or not workload.allows_one_pass:
        return False
    if architecture.trains_all or architecture.is_checkpointed:
        return False
    share = CPU_SHARE if device.kind == "cpu" else GPU_HOST_SHARE
    most = share * host_bytes
    budget = min(CPU_BYTES, most) if device.kind == "cpu" else most
    return gradient_bytes(architecture, workload) <= budget


def fits(architecture: Architecture, device: Device, workload: Workload) -> bool:
    """Whether one row of each kind of pass fits the device."""
    largest = max(
        architecture.training_bytes(), architecture.decoding_bytes, architecture.sampling_bytes
    )
    return largest * device.cores <= activation_bytes(architecture, device, workload)
