"""Reproduces the published comparison of algorithms on the embedded model: the same rule tunes each
method on one seed, and the tuned method then runs on more seeds.

python benchmarks/comparison.py demo/compressibility runs/comparison/compressibility

Every run is started through the command line, one at a time. If the script was stopped, running it
again continues where it stopped. At the end the folder contains compare.html, .svg, .png, .csv, and
pictures.png.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from rediffuse.config.recipes import read_recipe, resolved
from rediffuse.runs.folder import existing

QUERIES = 1080
"""Rewards that every method has learned from when its last epoch is sampled."""
METHODS = ("ddpo_is", "ddpo_sf", "rwr", "rwr_sparse")
LEARNING_RATES = (3.125e-4, 6.25e-4, 1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)
CLIP_RANGES = (1e-4, 1e-3, 1e-2, 1e-1)
CLIP = "algorithm.clip-range"
SEEDS = (0, 1, 2)
COLUMNS, SIDE, GAP = 10, 96, 6
TUNED_ON = SEEDS[0]

Flags = dict[str, float]


def climbed(ladder: Sequence[float], start: int, reward: Callable[[float], float]) -> float:
    """The best value of a ladder, from `start` and its upper neighbour on: a step further while the
    last one was the best.
    """
    low, high = start, start + 1
    best = max((low, high), key=lambda i: reward(ladder[i]))
    step = 1 if best == high else -1
    while 0 <= best + step < len(ladder) and reward(ladder[best + step]) > reward(ladder[best]):
        best += step
    return ladder[best]


def rewards_of(run: Path) -> list[float]:
    """The mean reward of each epoch that is done."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [float(json.loads(line)["reward_mean"]) for line in lines]


def last_reward(recipe: str, method: str, flags: Flags, seed: int, out: Path) -> tuple[Path, float]:
    """Of the epoch sampled after QUERIES rewards; the run's folder with it."""
    run = out / "-".join([method, *(f"{value:g}" for value in flags.values()), str(seed)])
    epochs = (
        QUERIES // resolved(read_recipe(recipe), {"algorithm": {"name": method}}).num_samples + 1
    )
    options = {
        "algorithm": method,
        **flags,
        "seed": seed,
        "epochs": epochs,
        "evaluation.every": 0,
        "run-dir": run,
    }
    command = [
        "train",
        recipe,
        *(str(word) for key, value in options.items() for word in (f"--{key}", value)),
    ]
    if run.exists():
        command = ["resume", str(run)]
    if len(rewards_of(run)) < epochs:
        subprocess.run(
            [sys.executable, "-m", "rediffuse", *command], check=True, stdout=subprocess.DEVNULL
        )
    rewards = rewards_of(run)
    settings = "  ".join(f"{key} {value:g}" for key, value in flags.items())
    print(
        f"{method:10}  {settings}  seed {seed}: {rewards[0]:+.3f} to {rewards[-1]:+.3f}", flush=True
    )
    return run, rewards[-1]


def tuned(recipe: str, method: str, out: Path) -> Flags:
    """The learning rate first; then, for importance sampling, the clip range at that rate."""
    done: dict[tuple[float, ...], float] = {}

    def reward(flags: Flags) -> float:
        key = tuple(flags.values())
        if key not in done:
            done[key] = last_reward(recipe, method, flags, TUNED_ON, out)[1]
        return done[key]

    clip: Flags = {CLIP: CLIP_RANGES[2]} if method == "ddpo_is" else {}
    rate = climbed(LEARNING_RATES, 3, lambda value: reward({"learning_rate": value, **clip}))
    if not clip:
        return {"learning_rate": rate}
    return {
        "learning_rate": rate,
        CLIP: climbed(CLIP_RANGES, 1, lambda value: reward({"learning_rate": rate, CLIP: value})),
    }


def pictured(runs: Sequence[Path]) -> Image.Image:
    """The same prompts and seeds: before, then after each method, a row each."""
    grids = [runs[0] / "samples" / "epoch-00000" / "grid.png"]
    grids += [max((run / "samples").glob("epoch-*")) / "grid.png" for run in runs]
    shown = Image.new("RGB", (COLUMNS * SIDE, len(grids) * (SIDE + GAP) - GAP), "white")
    for number, path in enumerate(grids):
        with Image.open(path) as grid:
            side = grid.width // existing(runs[0]).config().evaluation.num_prompts
            row = grid.crop((0, 0, COLUMNS * side, side)).resize(
                (COLUMNS * SIDE, SIDE), Image.Resampling.LANCZOS
            )
        shown.paste(row, (0, number * (SIDE + GAP)))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    best = {method: tuned(arguments.recipe, method, arguments.out) for method in METHODS}
    runs = [
        last_reward(arguments.recipe, method, best[method], seed, arguments.out)[0]
        for seed in SEEDS
        for method in METHODS
    ]
    compare = [
        sys.executable,
        "-m",
        "rediffuse",
        "compare",
        *map(str, runs),
        "--out",
        str(arguments.out),
    ]
    subprocess.run(compare, check=True)
    pictured(runs[: len(METHODS)]).save(arguments.out / "pictures.png")


if __name__ == "__main__":
    main()
