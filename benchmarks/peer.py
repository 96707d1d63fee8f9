"""Compares the speed and memory of one epoch of training with TRL's DDPOTrainer, on a CPU.

python -m benchmarks.peer                        all configurations of `tiny`: about 15 minutes
python -m benchmarks.peer --quick                one pair each: 3 minutes
python -m benchmarks.peer --shape mini           a larger network, of fewer images and steps
python -m benchmarks.peer --update-json          writes benchmarks/results/peer.json

The first call makes .venv-peer, with the last TRL that has the trainer. Both sides run in processes
of their own, each on one core with one torch thread, so that our side has one lane. They share a
pipeline of random weights and the adapter's initial weights. Before anything is timed, both train
for one epoch with the same noise, order and reward: unless log-probabilities, losses and updates
agree, no number is printed and the exit code is 1. Then their runs alternate, and every run of ours
stands between two of the peer, whose ratio is the noise floor. A ratio is the peer's CPU seconds
over ours; a run's seconds are the median of its epochs without the first. On neither side do
they include start-up, evaluations, checkpoints or reports.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks import _meter
from benchmarks._peer_gate import Gate, compared
from benchmarks._peer_job import PHASES, SEED, Job
from benchmarks._pipelines import ANIMALS, ARCHITECTURES, build
from rediffuse.maths import noise
from rediffuse.prompts.text_file import TextFile

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "peer.json"
ENVIRONMENT = ROOT / ".venv-peer"
PEER = "trl==0.23.1"
LIBRARIES = ("diffusers", "transformers", "peft", "accelerate")
"""They have the same versions on both sides, those of constraints.txt."""
MEGABYTE = 1e6


@dataclass(frozen=True)
class Shape:
    """The size of one comparison.

    Attributes:
        images: Samples of an epoch.
        steps: Denoising steps.
        judged: What the gate compares. The updates of `mini` differ by Adam's first step, which
            turns gradients of almost 0 into steps of full size: there it is the gradient. With two
            steps instead of four, half of the gradient would be that of the last step, whose small
            standard deviation enlarges rounding errors: two sizes of our own micro-batch would
            differ by 2e-4.
    """

    images: int
    steps: int
    judged: tuple[str, ...]


SHAPES = {
    "tiny": Shape(16, 10, ("log_probs", "loss", "update")),
    "mini": Shape(4, 4, ("log_probs", "loss", "gradient")),
}
CONFIGURATIONS = ((1, 1), (1, 2), (4, 1), (4, 2))
"""The peer's batch size, and the updates of an epoch."""


class UnequalError(Exception):
    """The sides do not compute the same, so that their speed cannot be compared."""


def environment() -> Path:
    """Returns the interpreter of the peer's environment, which the first call makes."""
    python, made = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "versions.txt"
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    wanted = [PEER, *(f"{name}=={pinned[name]}" for name in LIBRARIES)]
    if not made.exists() or made.read_text().split() != wanted:
        pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint"]
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        for packages in (["torch"], wanted):
            subprocess.run([*pip, str(ROOT / "constraints.txt"), *packages], check=True)
        made.write_text("\n".join(wanted))
    return python


class Sides:
    """Runs jobs of both sides on one shared pipeline."""

    def __init__(self, shape: str, folder: Path, rows: int | None) -> None:
        self._python, self._folder, self._rows = environment(), folder, rows
        self._number = 0
        self._size = SHAPES[shape]
        pipeline = build(shape, folder / "pipeline")
        prompts = folder / "prompts.txt"
        prompts.write_text("\n".join(ANIMALS))
        self._job = Job(
            str(pipeline),
            "",
            str(prompts),
            self._size.images,
            self._size.steps,
            batch=1,
            updates=1,
            epochs=0,
            record=True,
        )
        initial = load_file(self.peer(self._job).arrays)
        adapter = folder / "adapter.safetensors"
        save_file({n.removeprefix("before."): t for n, t in initial.items()}, adapter)
        self._job = replace(self._job, adapter=str(adapter), record=False)
        side = ARCHITECTURES[shape].unet["sample_size"]
        self._draw((ARCHITECTURES[shape].vae["latent_channels"], side, side))

    def job(self, batch: int, updates: int, epochs: int) -> Job:
        """Returns a job that is timed."""
        return replace(self._job, batch=batch, updates=updates, epochs=epochs)

    def peer(self, job: Job) -> Job:
        return self._run(self._python, "benchmarks._peer_trl", job)

    def ours(self, job: Job) -> Job:
        return self._run(
            Path(sys.executable), "benchmarks._peer_ours", replace(job, rows=self._rows)
        )

    def gate(self, batch: int, updates: int) -> Gate:
        """Runs one epoch of both sides with the same random draws and compares them."""
        job = replace(self.job(batch, updates, 1), record=True)
        given = {"draws": str(self._draws), "prompts": str(self._in_order)}
        both = self.peer(replace(job, **given)), self.ours(job)
        losses = [measured(each)["epochs"][0]["loss"] for each in both]
        peer, ours = (load_file(each.arrays) for each in both)
        return compared(peer, ours, (losses[0], losses[1]), self._size.judged)

    def _draw(self, latent: tuple[int, int, int]) -> None:
        """Writes what our side draws in its first epoch, for the peer."""
        images, steps = self._size.images, self._size.steps
        generators = [noise.generator(SEED, 0, "noise", index) for index in range(images)]
        drawn = [noise.draw(generators, latent) for _ in range(steps + 1)]
        order = torch.randperm(images, generator=noise.generator(SEED, 0, "order", 0))
        self._draws = self._folder / "draws.safetensors"
        save_file({"noise": torch.stack(drawn, 1), "order": order}, self._draws)
        prompts = TextFile(Path(self._job.prompts)).draw(
            images, noise.generator(SEED, 0, "prompts")
        )
        self._in_order = self._folder / "in-order.txt"
        self._in_order.write_text("\n".join(prompt.text for prompt in prompts))

    def _run(self, python: Path, module: str, job: Job) -> Job:
        self._number += 1
        job = replace(job, out=str(self._folder / str(self._number)))
        quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            [str(python), "-m", module, str(job.write())],
            cwd=ROOT,
            env={**os.environ, **quiet},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{module} failed:\n{done.stdout}\n{done.stderr}")
        return job


def measured(job: Job) -> dict[str, Any]:
    """Returns what a finished job measured."""
    found: dict[str, Any] = json.loads(job.result.read_text())
    return found


def seconds(run: Mapping[str, Any], phase: str) -> float:
    """Returns the median CPU seconds of a run's epochs without the first."""
    return median(epoch[phase] for epoch in run["epochs"][1:])


def ratios(above: Sequence[Mapping[str, Any]], below: Sequence[Mapping[str, Any]]) -> Any:
    """Returns the median, the least and the greatest ratio of paired runs, by phase."""
    found = {}
    for phase in PHASES:
        each = [seconds(a, phase) / seconds(b, phase) for a, b in zip(above, below, strict=True)]
        found[phase] = {"median": median(each), "min": min(each), "max": max(each)}
    return found


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the medians of one side's runs: CPU seconds by phase, growth of memory, and the loss,
    KL and clip fraction of the last epoch.
    """
    last = [run["epochs"][-1] for run in runs]
    return {
        **{f"seconds_{phase}": median(seconds(run, phase) for run in runs) for phase in PHASES},
        "growth_megabytes": median(run["growth_bytes"] for run in runs) / MEGABYTE,
        **{
            name: median(epoch[name] for epoch in last)
            for name in ("loss", "approx_kl", "clip_fraction")
        },
    }


def comparison(sides: Sides, batch: int, updates: int, pairs: int, epochs: int) -> dict[str, Any]:
    """Measures one configuration.

    Raises:
        UnequalError: The gate failed.
    """
    gate = sides.gate(batch, updates)
    if gate.failures:
        raise UnequalError(f"batch {batch}, {updates} updates: {'; '.join(gate.failures)}")
    job = sides.job(batch, updates, epochs)
    peer, ours = [measured(sides.peer(job))], []
    for _ in range(pairs):
        ours.append(measured(sides.ours(job)))
        peer.append(measured(sides.peer(job)))
    return {
        "batch": batch,
        "updates": updates,
        "gate": asdict(gate),
        "ratio": ratios(peer[:-1], ours),
        "noise_floor": ratios(peer[:-1], peer[1:]),
        "peer": summary(peer),
        "ours": summary(ours),
    }


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns the results as text, two rows per configuration."""
    lines = [
        "batch updates   whole             sampling          training          peer/peer        "
        "   growth MB  loss        KL       clipped"
    ]
    for each in found:
        shown = [_range(each["ratio"][phase]) for phase in ("whole", "sampling", "training")]
        floor = _range(each["noise_floor"]["whole"])
        columns = "  ".join(f"{text:16s}" for text in [*shown, floor])
        start = f"{each['batch']:5d} {each['updates']:7d}   {columns}"
        lines.append(f"{start}  {_of_side('peer', each['peer'])}")
        lines.append(f"{'':{len(start)}s}  {_of_side('ours', each['ours'])}")
    return "\n".join(lines)


def _range(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"


def _of_side(name: str, side: Mapping[str, float]) -> str:
    return (
        f"{name} {side['growth_megabytes']:7.0f}  {side['loss']:+.1e}  {side['approx_kl']:.1e}"
        f"  {side['clip_fraction']:.3f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="tiny")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of a run; the first is left out")
    parser.add_argument("--rows", type=int, help="ours; by default, what rediffuse chooses")
    parser.add_argument("--quick", action="store_true", help="one pair, two epochs")
    parser.add_argument("--update-json", action="store_true", help=f"write {RESULTS.name}")
    args = parser.parse_args()
    pairs, epochs = (1, 2) if args.quick else (args.pairs, args.epochs)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(args.shape, Path(folder), args.rows)
        for batch, updates in CONFIGURATIONS:
            try:
                found.append(comparison(sides, batch, updates, pairs, epochs))
            except UnequalError as error:
                print(f"The sides do not agree, so there is no number: {error}", file=sys.stderr)
                return 1
    print(f"{args.shape}, peer / ours in CPU seconds: median (least–greatest) of {pairs} pairs")
    print(table(found))
    if args.update_json:
        shape = asdict(SHAPES[args.shape]) | {"pairs": pairs, "epochs": epochs, "rows": args.rows}
        _update(args.shape, {"machine": _machine(), "shape": shape, "configurations": found})
    return 0


def _machine() -> dict[str, Any]:
    return {**_meter.machine(), "peer": PEER, "torch_threads": 1, "cores_used": 1}


def _update(shape: str, found: Mapping[str, Any]) -> None:
    """Replaces the results of one shape in the committed file."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**known, shape: found}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
