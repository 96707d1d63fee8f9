"""Measures a run with both judges of the embedded model, before and after training, on all of its
prompts and with seeds that were not used in training.

python benchmarks/judges.py RUN …

For each run of demo/alignment or demo/counting, the script prints the percentage of images that
contain everything that their prompt asks for, and the percentage for each attribute alone,
according to the judge that was trained on and according to the held-out judge. The seeds are the
same before and after training, so the standard error is that of the paired difference.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rediffuse.learning.average import PREFIX
from rediffuse.lookup.build import build
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.rewards._emoji import Judge
from rediffuse.rewards.emoji_judge import named
from rediffuse.rollout import Draws, collect
from rediffuse.runs import checkpoint, folder
from rediffuse.types import Prompt

SEED = 1_000_003
NAMES = ("trained", "held_out")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--images-per-prompt", type=int, default=4)
    args = parser.parse_args()
    judges = {name: Judge.load(name, "cpu") for name in NAMES}
    for path in args.runs:
        before, after, prompts = sampled(path, args.images_per_prompt)
        print(
            f"{path}: {len(before)} images of {len(prompts)} prompts, % right before -> after"
            " (paired difference ± s.e.)"
        )
        each = [prompt for prompt in prompts for _ in range(args.images_per_prompt)]
        for name, judge in judges.items():
            was, now = (named(judge, judge(images), each) for images in (before, after))
            print(
                f"  {name:8}  all"
                f" {difference(was.nan_to_num(1.0).amin(1), now.nan_to_num(1.0).amin(1))}",
                end="",
            )
            for number, attribute in enumerate(judge.labels):
                if was[:, number].isfinite().any():
                    print(f"   {attribute} {difference(was[:, number], now[:, number])}", end="")
            print(flush=True)


def sampled(path: Path, images_per_prompt: int) -> tuple[Tensor, Tensor, Sequence[Prompt]]:
    """(N, 3, H, W) of the pretrained model and of the newest checkpoint, prompt by prompt."""
    run = folder.existing(path)
    config = run.config()
    denoiser = build("model", config.model).load("cpu", config.seed)
    policy = DiffusionPolicy(denoiser, build("sampler", config.sampler).bind(denoiser.schedule))
    saved = checkpoint.load_newest(run.checkpoints)
    checkpoint.put_back(
        {k: v for k, v in saved.weights.items() if not k.startswith(PREFIX)}, denoiser.parameters()
    )
    drawn = build("prompts", {**config.prompts, "balanced": True}).draw(
        2000, torch.Generator().manual_seed(0)
    )
    prompts = sorted(
        {prompt.text: prompt for prompt in drawn}.values(), key=lambda prompt: prompt.text
    )
    each = [prompt for prompt in prompts for _ in range(images_per_prompt)]

    def images() -> Tensor:
        draws = Draws(range(len(each)), each, (SEED, "judges"))
        return torch.cat([rollout.samples for rollout in collect(policy, draws, 20, world)])

    with World.joined(len(each)) as world:
        with denoiser.using("start"):
            before = images()
        return before, images(), prompts


def difference(was: Tensor, now: Tensor) -> str:
    known = was.isfinite()
    gain = now[known] - was[known]
    error = gain.std() / len(gain) ** 0.5
    return (
        f"{100 * was[known].mean():.1f} -> {100 * now[known].mean():.1f}"
        f" ({100 * gain.mean():+.1f} ± {100 * error:.1f})"
    )


if __name__ == "__main__":
    main()
