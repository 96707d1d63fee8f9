"""Measures how to use the cores of a CPU for a small model: images per second of one epoch with
parallel lanes, compared with torch's own threads.

python benchmarks/lanes.py
"""

import time
from pathlib import Path

import torch

from rediffuse.config.recipes import read_recipe, resolved
from rediffuse.lookup.parts import assemble
from rediffuse.processes.machine import num_cores
from rediffuse.processes.world import World
from rediffuse.runs.folder import RunFolder
from rediffuse.start import load_run

EPOCHS = 3


def images_per_second(lanes: int, threads: int) -> float:
    config = resolved(
        read_recipe("demo/incompressibility"), {"evaluation": {"every": 0}, "prompts_per_epoch": 64}
    )
    world = World(lanes)
    torch.set_num_threads(threads)
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), world).run
    best = 0.0
    for epoch in range(EPOCHS):
        began = time.perf_counter()
        run.epoch = epoch
        prompts = run.draw()
        rollout, scores = run.sample(prompts)
        run.learner.update(rollout, run.learner.advantages(scores.rewards, prompts), epoch)
        best = max(best, len(prompts) / (time.perf_counter() - began))
    return best


def main() -> None:
    cores = num_cores()
    for lanes, threads in [(1, 1), (1, cores), (cores, 1)] * 2:
        print(
            f"{lanes} lanes x {threads} threads: {images_per_second(lanes, threads):5.1f} images/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
