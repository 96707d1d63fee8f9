"""Measures evaluations ("looks") in CPU seconds: one of a demo by part and as a share of an epoch,
and the bookkeeping of one in a run that has had 10, 100 and 1,000 of them.

python benchmarks/looks.py [RECIPE …]
"""

import json
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import rediffuse
from rediffuse import Callback, Epoch
from rediffuse.callbacks.protocol import RunState
from rediffuse.config.recipes import config_from
from rediffuse.config.schema import to_yaml
from rediffuse.evaluation.callback import Evaluator
from rediffuse.evaluation.monitor import Monitor
from rediffuse.evaluation.pictures import Pictures
from rediffuse.report import page
from rediffuse.rollout import Draws, collecting
from rediffuse.runs import checkpoint, log
from rediffuse.runs.folder import RunFolder
from rediffuse.verdict import verdict
from rediffuse.verdict.overoptimisation import Followed

EPOCHS = 5
RECIPES = ("demo/incompressibility", "demo/counting")
NUM_LOOKS = (10, 100, 1000)
REPEATS = 5
STAGES = {
    "whole": (Evaluator, "_look"),
    "image files": (Pictures, "save"),
    "held-out rewards": (Monitor, "_asked"),
    "statistics": (Monitor, "_statistics"),
    "KL": (Monitor, "_kl"),
    "bookkeeping": (Evaluator, "_judge"),
}
"""The functions that measure an evaluation whose samples are there. The last evaluation of a run,
which no epoch follows, also samples in the first of them, and is left out.
"""


class Clock(Callback):
    """The CPU seconds of each epoch, and of each stage and each micro-batch of its evaluation."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.looks: list[dict[str, float]] = []
        self.current: dict[str, float] = defaultdict(float)

    def epoch_begins(self, run: RunState) -> None:
        self.current.clear()

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        self.epochs.append(time.process_time() - self.began)
        self.looks.append(dict(self.current))
        self.began = time.process_time()

    def run_begins(self, run: RunState) -> None:
        self.began = time.process_time()

    def timed(
        self, name: str, work: Callable[..., Any], clock: Callable[[], float]
    ) -> Callable[..., Any]:
        """Returns a function that adds its time to a stage."""

        def timed(*args: Any, **options: Any) -> Any:
            began = clock()
            try:
                return work(*args, **options)
            finally:
                self.current[name] += clock() - began

        return timed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, the stages and the sampling of evaluations are measured."""
        real = collecting.sampled
        with ExitStack() as stack:
            for name, (owner, method) in STAGES.items():
                work = self.timed(name, getattr(owner, method), time.process_time)
                stack.enter_context(patch.object(owner, method, work))
            mine = self.timed("sampling", real, time.thread_time)

            def sampled(policy: Any, draws: Draws, *args: Any, **options: Any) -> Any:
                chosen = mine if "pictures" in draws.key else real
                return chosen(policy, draws, *args, **options)

            stack.enter_context(patch.object(collecting, "sampled", sampled))
            yield


def look(recipe: str) -> None:
    """Prints the time of a recipe's evaluation; the first epoch is left out."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, clock.watching():
        options = {"epochs": EPOCHS, "evaluation": {"every": 1}}
        rediffuse.train(recipe, Path(folder, "run"), callbacks=[clock], **options)
    rows = clock.looks[1:]
    parts = {name: median(row.get(name, 0.0) for row in rows) for name in ("sampling", *STAGES)}
    whole = median(row["whole"] + row["sampling"] for row in rows)
    epoch = median(
        seconds - row["whole"] - row["sampling"]
        for seconds, row in zip(clock.epochs[1:], rows, strict=True)
    )
    every = config_from(recipe, {}).evaluation.every
    print(
        f"{recipe}: an epoch {epoch:.2f} CPU-s without its evaluation, which is {whole:.2f} more:"
        f" {whole / epoch:.1%}; with evaluation.every {every}, {whole / epoch / every:.1%}"
    )
    for name, seconds in parts.items():
        if name != "whole":
            print(f"  {name:18s} {seconds:7.3f} CPU-s  {seconds / epoch:6.2%}")


def rows_of(epoch: int, draws: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the rows of metrics.jsonl and monitor.jsonl of an epoch of a healthy run."""
    values = [draws.gauss(0.8 + 1e-3 * epoch, 0.1) for _ in range(36)]
    held_out = {"mean": sum(values) / 36, "values": values, "parts": {"right": values}}
    metrics = {"reward_mean": draws.gauss(epoch, 1), "reward_std": 1.0, "masked_rewards": 0}
    metrics |= {"reward_queries": 90 * (epoch + 1), "skipped_updates": 0, "trained_samples": 90}
    statistics = {"diversity": draws.random(), "kl": draws.random(), "distance": draws.random()}
    monitor = {"images_per_prompt": 3, "held_out": {"judge": held_out}, "statistics": statistics}
    return {"epoch": epoch, **metrics}, {"epoch": epoch, **monitor, "seconds": 1.0}


def grow(run: RunFolder, followed: Followed, num_looks: int) -> None:
    """Adds epochs with evaluations, samples and checkpoints to the folder of a run."""
    draws = random.Random(num_looks)
    for epoch in range(len(followed.looks), num_looks):
        metrics, monitor = rows_of(epoch, draws)
        row = {"epoch": epoch, "prompt": "a cat", "status": "ok", "attempts": 1}
        rewards = [{**row, "index": i, "reward": draws.gauss(epoch, 1)} for i in range(90)]
        for path, rows in (
            (run.metrics, [metrics]),
            (run.monitor, [monitor]),
            (run.rewards, rewards),
        ):
            log.append(path, rows)
        followed.metrics.append(metrics)  # type: ignore[arg-type]
        followed.looks.append(monitor)  # type: ignore[arg-type]
        (run.samples / f"epoch-{epoch:05d}").mkdir(parents=True)
        for name in ("weights", "optimizer"):
            place = run.checkpoints / f"epoch-{epoch + 1:05d}" / f"{name}.safetensors"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    followed.course(range(num_looks))


def milliseconds(work: Callable[[], object]) -> float:
    """Returns the median CPU time of a call."""
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        found.append(1000 * (time.process_time() - began))
    return median(found)


def bookkeeping(run: RunFolder, followed: Followed) -> tuple[float, float, float]:
    """Returns the milliseconds of the bookkeeping of one more evaluation, of listing the
    checkpoints, and of writing the verdict and the page.
    """

    grown = Followed([*followed.metrics], [*followed.looks])
    grown.course()

    def one_more() -> None:
        metrics, monitor = rows_of(len(grown.looks), random.Random(0))
        grown.metrics.append(metrics)  # type: ignore[arg-type]
        grown.looks.append(monitor)  # type: ignore[arg-type]
        log.append(run.monitor.with_name("more.jsonl"), [monitor])
        kept = run.planned_checkpoints(1, 10**6)
        checkpoint.call_best(run.checkpoints, grown.course(kept).best)

    def written() -> None:
        verdict.write(run)
        page.write(run)

    mine = milliseconds(one_more)
    return mine, milliseconds(lambda: checkpoint.epochs(run.checkpoints)), milliseconds(written)


def along_a_run() -> None:
    """Prints what an evaluation's bookkeeping and a page cost as a run grows."""
    with tempfile.TemporaryDirectory() as folder:
        run, followed = RunFolder(Path(folder)), Followed()
        run.path.joinpath("config.yaml").write_text(
            to_yaml(config_from("demo/incompressibility", {"epochs": 10**6}))
        )
        run.samples.mkdir()
        run.samples.joinpath("prompts.json").write_text(json.dumps(["a cat"] * 12))
        for num_looks in NUM_LOOKS:
            grow(run, followed, num_looks)
            mine, names, written = bookkeeping(run, followed)
            print(
                f"{num_looks:5d} evaluations: bookkeeping {mine:5.2f} ms, names of checkpoints"
                f" {names:5.2f} ms, verdict and page {written:6.0f} ms",
                flush=True,
            )


def main(recipes: Sequence[str]) -> None:
    along_a_run()
    for recipe in recipes:
        look(recipe)


if __name__ == "__main__":
    main(sys.argv[1:] or RECIPES)
