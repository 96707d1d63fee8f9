"""Measures when the rule of rediffuse.verdict.overoptimisation marks runs of the demos, and how
good their images are at that time.

for seed in 0 1 2 3 4 5; do
  rediffuse train demo/incompressibility --epochs 32 --evaluation.every 1 --seed $seed \\
    --run-dir runs/over/incompressibility-$seed
done
python benchmarks/overoptimisation.py --healthy 11 runs/over/incompressibility-*

The first epochs of a run, as many as its recipe has, serve as the healthy run of the same seed: a
mark within them is a false alarm. The held-out judge evaluates the saved images of every evaluation
again, so the script also works on runs of older versions.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.images import read
from rediffuse.rewards.emoji_judge import EmojiJudge
from rediffuse.runs import folder, log
from rediffuse.types import Prompt, Reward
from rediffuse.verdict.overoptimisation import course


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument(
        "--healthy", type=int, required=True, metavar="EPOCHS", help="of the recipe"
    )
    parser.add_argument("--every", type=int, default=1, help="look at every so many epochs alone")
    parser.add_argument("--images-per-prompt", type=int, default=2, help="look at so many alone")
    args = parser.parse_args()
    judge = EmojiJudge(judge="held_out").load("cpu")
    alarms = detections = 0
    print(
        "run   epochs   mark (best)   named right, %: first, at the best, at the mark, two epochs"
        " later, last"
    )
    for path in args.runs:
        metrics = log.read(path / "metrics.jsonl")
        looks = looked(path, judge, args.every, args.images_per_prompt)
        gone = course(metrics, looks)
        mark = gone.fall.epoch if gone.fall else None
        alarms += mark is not None and mark <= args.healthy
        detections += mark is not None and mark > args.healthy
        right = {row["epoch"]: row["right"] for row in looks}
        stages = [0, gone.best, mark, min(mark + 2, max(right)) if mark else None, max(right)]
        shares = "  ".join(
            "   -" if stage is None else f"{100 * right[_near(right, stage)]:4.0f}"
            for stage in stages
        )
        print(f"{path}   {len(metrics)}   {mark} ({gone.best})   {shares}", flush=True)
    print(
        f"marked after epoch {args.healthy}: {detections} of {len(args.runs)}; within it, false"
        f" alarms: {alarms}"
    )


@torch.no_grad()
def looked(path: Path, judge: Reward, every: int, images_per_prompt: int) -> list[dict[str, Any]]:
    """Returns a row of each stage, as in monitor.jsonl, with the share that is named right."""
    run = folder.existing(path)
    texts = json.loads((run.samples / "prompts.json").read_text())
    stages = sorted(run.samples.glob("epoch-*/grid.png"))
    rows = []
    for stage in stages:
        epoch = int(stage.parent.name.removeprefix("epoch-"))
        if epoch % every and stage != stages[-1]:
            continue
        images = pictures(stage.parent, len(texts), images_per_prompt)
        prompts = [Prompt(text) for text in texts for _ in range(len(images) // len(texts))]
        judgement = judge(images, prompts)
        entry = {"mean": judgement.values.mean().item(), "values": judgement.values.tolist()}
        if not epoch:
            turn = len(images) // len(texts)
            entry["of_other_prompts"] = (
                judge(images, [*prompts[turn:], *prompts[:turn]]).values.mean().item()
            )
        right = judgement.parts["right"].mean().item()
        turn = len(images) // len(texts)
        rows.append(
            {
                "epoch": epoch,
                "images_per_prompt": turn,
                "held_out": {"emoji_judge": entry},
                "right": right,
            }
        )
    return rows


def pictures(stage: Path, num_prompts: int, images_per_prompt: int) -> Tensor:
    """(N, 3, H, W): the first few of each prompt."""
    images = torch.stack([read(path) for path in sorted(stage.glob("[0-9]*.png"))])
    return images.unflatten(0, (num_prompts, -1))[:, :images_per_prompt].flatten(0, 1)


def _near(right: dict[int, float], epoch: int) -> int:
    return min(right, key=lambda stage: abs(stage - epoch))


if __name__ == "__main__":
    main()
