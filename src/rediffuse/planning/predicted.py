"""The prediction of a run for a device, and how `rediffuse plan` says it."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Literal

from rediffuse.config.schema import Config, Rows
from rediffuse.costs.devices import Device
from rediffuse.costs.predict import Costs, Prediction, cures
from rediffuse.lookup.parts import Parts
from rediffuse.planning.timings import Timings
from rediffuse.planning.work import (
    architecture_of,
    decided_one_pass,
    decided_rows,
    workload,
)
from rediffuse.processes.machine import main_memory

GB, MB = 2**30, 2**20
"""As cards are sold: binary."""
KINDS: tuple[Literal["sampling", "decoding", "training"], ...] = (
    "sampling",
    "decoding",
    "training",
)
UNKNOWN = "predicted    nothing: this model's costs are not known before it is loaded"


def costs_of(
    config: Config, parts: Parts, device: Device, timings: Timings | None = None
) -> Costs | None:
    """Returns what a run of one process costs; None if its model's costs are unknown.

    Args:
        config: The run's configuration.
        parts: Its components.
        device: Where it would compute.
        timings: Measured passes, which replace the computed seconds.
    """
    architecture, work = architecture_of(parts), workload(config, parts)
    if architecture is None:
        return None
    one_pass = decided_one_pass(config, architecture, device, work, main_memory())
    found = timings.rows if timings else None
    rows = decided_rows(config, architecture, device, work, one_pass=one_pass, measured=found)
    whole = replace(config, rows=rows)
    rows = Rows(**{kind: whole.rows_for(kind) for kind in KINDS})
    seconds: dict[str, float] = {}
    if timings:
        seconds = {kind: timings.at(kind, whole.rows_for(kind)) for kind in KINDS}
    return Costs(architecture, device, work, rows, one_pass, seconds)


def lines(config: Config, costs: Costs) -> list[str]:
    """Returns the lines of a prediction, ready to print."""
    prediction = costs.prediction()
    device = costs.device
    cores = f", {device.cores} {'core' if device.cores == 1 else 'cores'}" if is_cpu(device) else ""
    guessed = "" if device.is_known else ", whose speed is not known"
    rows = ", ".join(f"{value} {name}" for name, value in asdict(costs.rows).items())
    how = "measured" if costs.measured else "predicted"
    passes = "; gradients of the first update while sampling" if costs.one_pass else ""
    epoch = prediction.epoch_seconds
    said = [
        f"predicted on {device.name}{cores}, {_size(device.memory_bytes)}{guessed}",
        f"rows         {rows}{passes}",
        f"memory       {_size(prediction.bytes)}: {_parts(prediction.memory)}",
    ]
    if prediction.host:
        total = _size(sum(prediction.host.values()))
        said.append(f"main memory  {total}: {_parts(prediction.host)}")
    said.append(
        f"time         {_time(epoch)} an epoch without rewards ({how}:"
        f" {_phases(prediction)}), {_time(epoch * config.epochs)} in all"
    )
    if not prediction.fits:
        said.append(
            f"It does not fit {_size(device.memory_bytes)}. What would help:"
            f" {', or '.join(cures(costs, prediction))}."
        )
    return said


def is_cpu(device: Device) -> bool:
    """Whether a device is a CPU."""
    return device.kind == "cpu"


def _parts(parts: Mapping[str, float]) -> str:
    shown = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {_size(value)}" for name, value in shown if value >= MB)


def _phases(prediction: Prediction) -> str:
    return ", ".join(f"{name} {_time(value)}" for name, value in prediction.seconds.items())


def _size(number: float) -> str:
    return f"{number / GB:.1f} GB" if number >= 0.95 * GB else f"{number / MB:.0f} MB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
