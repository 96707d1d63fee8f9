"""The tables of benchmarks/gpu.py, from the lines of its parts."""

from collections.abc import Mapping
from typing import Any

from benchmarks._gpu_parts import TRAJECTORY


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the measured parts as text: the loop, then the network alone."""
    rate = found.get("matmul", {}).get("teraflop_per_second")
    lines = [f"matrix products: {rate:.3g} TFLOP/s" if rate else "matrix products: not measured"]
    lines.append(
        f"{'part':16s}    images/s of {TRAJECTORY} steps (scaled)        share of the rate    peak"
        " memory, GB"
    )
    lines.append(f"{'':16s}    sampling   training      both    sampling  training")
    for name, row in found.items():
        if "images_per_second" in row:
            lines.append(_of_loop(name, row, shares(row, found)))
    lines.append(f"{'network alone':16s}    forward, ms   with backward, ms, per row")
    for name, row in found.items():
        if "forward_seconds" in row:
            both = row.get("forward_backward_seconds")
            text = f"{name:16s} {1e3 * row['forward_seconds']:14.2f}"
            lines.append(text + (f" {1e3 * both:19.2f}" if both else ""))
    skipped = [f"{name} ({row['skipped']})" for name, row in found.items() if "skipped" in row]
    return "\n".join(lines + ([f"skipped: {', '.join(skipped)}"] if skipped else []))


def shares(
    row: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]
) -> tuple[float | None, float | None]:
    """Returns which share of the measured rate of matrix products sampling and training reach;
    None where the rate or the number of operations is not known.
    """
    rate = found.get("matmul", {}).get("teraflop_per_second")
    counted = found.get("flops")
    if not rate or not counted:
        return None, None
    sampling = TRAJECTORY * counted["forward_teraflop"] + counted["decoding_teraflop"]
    training = TRAJECTORY * counted["forward_backward_teraflop"]
    return (
        sampling * row["sampling_images_per_second"] / rate,
        training * row["training_images_per_second"] / rate,
    )


def _of_loop(name: str, row: Mapping[str, Any], reached: tuple[float | None, float | None]) -> str:
    speeds = [row[f"{phase}images_per_second"] for phase in ("sampling_", "training_", "")]
    parts = "  ".join(f"{each:9.3g}" for each in speeds)
    of_rate = "  ".join("        -" if each is None else f"{each:9.0%}" for each in reached)
    keys = ("peak_allocated_gigabytes", "peak_reserved_gigabytes", "peak_host_gigabytes")
    memory = " / ".join(f"{row[key]:.2f}" for key in keys if key in row)
    return f"{name:16s}  {parts}  {of_rate}    {memory}"
