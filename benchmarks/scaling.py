"""Measures how the cost of a run grows: the exponent of CPU seconds in each size, on one core.

python -m benchmarks.scaling                       all sizes: about five minutes
python -m benchmarks.scaling --only images,looks
python -m benchmarks.scaling --update-json         writes benchmarks/results/scaling.json

Every point is a real run of a small pipeline of random weights; its first epoch is left out. The
exponent is the slope of log(seconds) over log(size), by least squares. An exponent over 1.1 needs a
reason, which the table gives.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import torch

from benchmarks import _meter
from benchmarks._loop import epochs_alone
from benchmarks._peer_job import reward
from benchmarks._pipelines import build
from rediffuse.types import Prompt

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
LIMIT = 1.1
EPOCHS = 3
"""Of each point, after one that warms up; the median counts."""
MODEL = {"name": "stable_diffusion", "lora_rank": 4}
OPTIONS: Mapping[str, Any] = {
    "prompts_per_epoch": 16,
    "micro_batch_size": 8,
    "model": MODEL,
    "sampler": {"name": "ddim", "num_steps": 4},
    "algorithm": {"name": "ddpo_is"},
}


@dataclass(frozen=True)
class Axis:
    """One size that is varied.

    Attributes:
        sizes: Its values.
        costs: Returns the CPU seconds for each of them.
        reason: Why its exponent may be over LIMIT; empty: it must not be.
    """

    sizes: Sequence[int]
    costs: Callable[[Path, Sequence[int]], list[float]]
    reason: str = ""


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns the slope of log(costs) over log(sizes)."""
    return linear_regression([math.log(n) for n in sizes], [math.log(c) for c in costs]).slope


def epoch_seconds(folder: Path, **over: Any) -> float:
    """Returns the CPU seconds of one epoch, with options over OPTIONS."""
    with tempfile.TemporaryDirectory() as place:
        options = _with_source(folder, over)
        with epochs_alone(options, Path(place) / "run", _reward) as run:
            run.step()
            each = []
            for _ in range(EPOCHS):
                began = _meter.cpu_seconds()
                run.step()
                each.append(_meter.cpu_seconds() - began)
    return median(each)


def by_option(key: str) -> Callable[[Path, Sequence[int]], list[float]]:
    """Returns the costs of an epoch by the value of an option such as `sampler.num_steps`."""
    part, _, name = key.partition(".")

    def costs(folder: Path, sizes: Sequence[int]) -> list[float]:
        return [
            epoch_seconds(folder, **{part: {**OPTIONS[part], name: n} if name else n})
            for n in sizes
        ]

    return costs


def of_pixels(folder: Path, sizes: Sequence[int]) -> list[float]:
    """Returns the costs of an epoch by the number of pixels of an image."""
    small = {"prompts_per_epoch": 8, "sampler": {"name": "ddim", "num_steps": 2}}
    sides = [math.isqrt(pixels) for pixels in sizes]
    return [epoch_seconds(folder, **small, model={**MODEL, "size_pixels": n}) for n in sides]


def of_prompts(folder: Path, sizes: Sequence[int]) -> list[float]:
    """Returns the costs of an epoch's advantages by the number of different prompts."""
    with (
        tempfile.TemporaryDirectory() as place,
        epochs_alone(_with_source(folder, {}), Path(place) / "run", _reward) as run,
    ):
        found = []
        for size in sizes:
            prompts = [Prompt(f"prompt {n}") for n in range(size)]
            values = torch.linspace(0, 1, size, dtype=torch.float64)
            began = _meter.cpu_seconds()
            run.learner.advantages(values, prompts)
            found.append(_meter.cpu_seconds() - began)
    return found


def of_epochs(every: int) -> Callable[[Path, Sequence[int]], list[float]]:
    """Returns the costs of so many epochs, with logs and checkpoints, from one run.

    Args:
        every: Epochs from one evaluation to the next; 0: none.
    """
    small = {
        "prompts_per_epoch": 4,
        "sampler": {"name": "ddim", "num_steps": 2},
        "logging": {"checkpoint_every": 1, "report_every": 0},
        "evaluation": {"every": every, "num_prompts": 2, "images_per_prompt": 1},
    }

    def costs(folder: Path, sizes: Sequence[int]) -> list[float]:
        with (
            tempfile.TemporaryDirectory() as place,
            epochs_alone(_with_source(folder, small), Path(place) / "run", _reward) as run,
        ):
            run.step()
            began, found = _meter.cpu_seconds(), []
            for number in range(1, max(sizes) + 1):
                run.step()
                if number in sizes:
                    found.append(_meter.cpu_seconds() - began)
        return found

    return costs


def of_processes(folder: Path, sizes: Sequence[int]) -> list[float]:
    """Returns the costs of an epoch of the same images, summed over so many processes."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
            worker = ["-m", "benchmarks.scaling", "--worker", str(folder), place]
            subprocess.run(
                [sys.executable, *launch, *worker], cwd=ROOT, check=True, capture_output=True
            )
            each = [json.loads(path.read_text()) for path in Path(place).glob("rank-*.json")]
        assert len(each) == size
        found.append(sum(each))
    return found


def work(folder: Path, place: Path) -> None:
    """Writes the CPU seconds of this one of several processes."""
    with epochs_alone(_with_source(folder, {}), place / "run", _reward) as run:
        run.step()
        began = _meter.cpu_seconds()
        for _ in range(EPOCHS):
            run.step()
        spent = (_meter.cpu_seconds() - began) / EPOCHS
        (place / f"rank-{run.world.rank}.json").write_text(json.dumps(spent))


AXES = {
    "images": Axis((16, 32, 64, 128), by_option("prompts_per_epoch")),
    "steps": Axis((4, 8, 16, 32), by_option("sampler.num_steps")),
    "pixels": Axis(
        (32**2, 64**2, 96**2, 128**2),
        of_pixels,
        "convolutions are linear in pixels, and self-attention is quadratic",
    ),
    "rank": Axis((4, 16, 64, 256), by_option("model.lora_rank")),
    "prompts": Axis((2_500, 5_000, 10_000, 20_000), of_prompts),
    "epochs": Axis((16, 32, 64, 128), of_epochs(0)),
    "looks": Axis((16, 32, 64, 128), of_epochs(1)),
    "processes": Axis((1, 2, 4), of_processes),
}


def _reward(samples: Any, prompts: Any) -> Any:
    return reward(samples)


def _with_source(folder: Path, over: Mapping[str, Any]) -> dict[str, Any]:
    options = {**OPTIONS, **over}
    return {**options, "model": {**options["model"], "source": str(folder)}}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the exponents as text, with the reason of each that is over LIMIT."""
    lines = []
    for name, row in found.items():
        seconds = ", ".join(f"{each:.3g}" for each in row["cpu_seconds"])
        sizes = ", ".join(f"{each:,}" for each in row["sizes"])
        over = row["exponent"] > LIMIT
        reason = f": {row['reason'] or 'no reason is known'}" if over else ""
        lines.append(f"{name:10s} {row['exponent']:5.2f}   {seconds} s at {sizes}{reason}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help=f"some of {','.join(AXES)}")
    parser.add_argument("--update-json", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--worker", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(*args.worker)
        return
    _meter.use_one_core()
    with tempfile.TemporaryDirectory() as place:
        folder = build("smallest", Path(place))
        for name in args.only.split(",") if args.only else AXES:
            axis = AXES[name]
            costs = axis.costs(folder, axis.sizes)
            found = {
                "exponent": exponent(axis.sizes, costs),
                "sizes": list(axis.sizes),
                "cpu_seconds": costs,
                "reason": axis.reason,
            }
            print(table({name: found}), flush=True)
            if args.update_json:
                update(name, found)


def update(name: str, found: Mapping[str, Any]) -> None:
    """Replaces the results of one size in the committed file."""
    known = json.loads(RESULTS.read_text())["exponents"] if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    whole = {"machine": _meter.machine(), "exponents": {**known, name: found}}
    RESULTS.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
