"""Compares what `rediffuse plan` predicts for a CPU with what runs need: peak memory, and CPU
seconds of an epoch.

python benchmarks/plan.py            # the demo recipes, `tiny` and `mini`; some minutes
python benchmarks/plan.py --fit      # times passes; prints the rates of a core (costs/devices.py)
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _pipelines import build

from rediffuse.config.recipes import read_recipe, resolved
from rediffuse.config.schema import Config
from rediffuse.costs.devices import on_this_machine
from rediffuse.costs.work import Work
from rediffuse.lookup.parts import assemble
from rediffuse.maths import noise
from rediffuse.planning.measure import KINDS, timed
from rediffuse.planning.predicted import costs_of
from rediffuse.planning.work import architecture_of
from rediffuse.policy import DiffusionPolicy
from rediffuse.start import begin

EPOCHS = 3
"""The first of them is left out."""
DEMOS = ("demo/counting", "demo/compressibility", "demo/incompressibility", "demo/alignment")
SMALL: dict[str, Any] = {
    "prompts_per_epoch": 16,
    "images_per_prompt": 1,
    "updates_per_epoch": 2,
    "algorithm": {"name": "ddpo_is", "advantage": "batch"},
    "reward": {"name": "jpeg_compressibility"},
    "evaluation": {"every": 0},
}
STEPS = {"tiny": 10, "mini": 2}
"""The denoising steps of the models of random weights."""
FITTED = ("demo/incompressibility", *STEPS)
MOST_ROWS = 32
FIT_SECONDS = 20.0


def config_of(case: str, folder: Path) -> Config:
    """Returns the run of a case: a recipe, or a model of random weights in `folder`."""
    over = {"epochs": EPOCHS}
    if case in DEMOS:
        return resolved(read_recipe(case), over)
    model = {"name": "stable_diffusion", "source": str(build(case, folder / case))}
    sampler = {"name": "ddim", "num_steps": STEPS[case]}
    return resolved({**SMALL, "model": model, "sampler": sampler}, over)


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def run_case(case: str, folder: Path) -> dict[str, float]:
    """Returns the predicted and the measured peak bytes and seconds of an epoch on all cores."""
    config = config_of(case, folder)
    costs = costs_of(config, assemble(config), on_this_machine(None))
    assert costs is not None
    prediction, seconds = costs.prediction(), []
    with begin(config, folder / f"run-{case.replace('/', '-')}") as run:
        began = cpu_seconds()
        while run.step():
            seconds.append((cpu_seconds() - began) / costs.device.cores)
            began = cpu_seconds()
        peak = run.world.peak_memory_bytes()
    return {
        "predicted_bytes": prediction.bytes,
        "bytes": peak,
        "predicted_seconds": prediction.epoch_seconds,
        "seconds": statistics.median(seconds[1:]),
    }


def compare(folder: Path) -> None:
    """Runs each case in a process of its own, for its peak memory, and prints a table."""
    print(f"{'':24}   memory, MB: plan, run, ratio    epoch, s: plan, run, ratio")
    for case in (*DEMOS, *STEPS):
        words = [sys.executable, __file__, "--case", case, "--folder", str(folder)]
        said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        memory = found["predicted_bytes"] / 2**20, found["bytes"] / 2**20
        times = found["predicted_seconds"], found["seconds"]
        print(
            f"{case:24} {memory[0]:8.0f} {memory[1]:8.0f} {memory[0] / memory[1]:8.2f}"
            f"   {times[0]:10.1f} {times[1]:8.1f} {times[0] / times[1]:8.2f}",
            flush=True,
        )


def fit(folder: Path) -> None:
    """Prints the rates of a core that explain measured passes best, and how well they do."""
    torch.set_num_threads(1)
    measured: list[tuple[str, Work, float]] = []
    for case in FITTED:
        config = config_of(case, folder)
        parts = assemble(config)
        architecture, denoiser = architecture_of(parts), parts.family.load("cpu", 0)
        policy = DiffusionPolicy(denoiser, parts.sampler.bind(denoiser.schedule))
        prompts = parts.prompts.draw(MOST_ROWS, noise.generator(0, "prompts"))
        for kind in KINDS:
            found = timed(policy, kind, prompts, MOST_ROWS, FIT_SECONDS)
            measured += [
                (f"{case} {kind} {rows}", getattr(architecture, kind)(rows), seconds)
                for rows, seconds in found.items()
            ]
    costs = rates([work for _, work, _ in measured], [seconds for *_, seconds in measured])
    for name, work, seconds in measured:
        explained = sum(costs[part] * getattr(work, part) for part in costs)
        print(f"{name:36} {seconds:8.4f} s, explained {explained / seconds:5.2f}")
    for part, cost in costs.items():
        print(f"{part:8} {1 / cost if cost else float('inf'):12.4g} a second")


def rates(works: list[Work], seconds: list[float]) -> Mapping[str, float]:
    """Returns the seconds of one unit of each part of work, none of them negative, with the least
    relative errors.
    """
    parts = [field.name for field in fields(Work)]
    table = np.array([[getattr(work, part) for part in parts] for work in works])
    used = list(range(len(parts)))
    while True:
        chosen = table[:, used] / np.array(seconds)[:, None]
        found, *_ = np.linalg.lstsq(chosen, np.ones(len(seconds)), rcond=None)
        if (found >= 0).all():
            return {
                **dict.fromkeys(parts, 0.0),
                **{parts[u]: float(c) for u, c in zip(used, found, strict=True)},
            }
        used = [each for each, cost in zip(used, found, strict=True) if cost >= 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--case", choices=(*DEMOS, *STEPS))
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        if args.case:
            print(json.dumps(run_case(args.case, folder)))
        elif args.fit:
            fit(folder)
        else:
            compare(folder)


if __name__ == "__main__":
    main()
