"""Both sides of benchmarks/peer.py: the peer's environment, the shared files, and the processes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks._peer_gate import Gate, compared
from benchmarks._peer_job import SEED, Job
from benchmarks._pipelines import ANIMALS, ARCHITECTURES, build
from rediffuse.maths import noise
from rediffuse.prompts.text_file import TextFile

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-peer"
PEER = "trl==0.23.1"
LIBRARIES = ("diffusers", "transformers", "peft", "accelerate")
"""They have the same versions on both sides, those of constraints.txt."""


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
            differ by 2e-4 in it.
    """

    images: int
    steps: int
    judged: tuple[str, ...]


SHAPES = {
    "tiny": Shape(16, 10, ("log_probs", "loss", "update")),
    "mini": Shape(4, 4, ("log_probs", "loss", "gradient")),
}


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
