"""A CNN that names what is in a picture, trained on renderings with blur and noise; and how much it finds in samples.

python -m pretraining.judge train --scenes WORK/scenes --out WORK/judge.safetensors
python -m pretraining.judge score --judge WORK/judge.safetensors --pipeline src/rediffuse/models/emoji/pipeline --grid WORK/grid.png
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pretraining import dataset
from pretraining.scenes import number_word, plural
from pretraining.train_vae import to_tensor
from pretraining.vocabulary import ACTIVITIES, ALL_ACTIVITIES, ALL_ANIMALS, ANIMALS, COUNTS
from rediffuse.prompts._draw import with_article

SEED = 5
STEPS, BATCH = 1500, 96
GRID_SAMPLES = 3


class Judge(nn.Module):
    """images (B, 3, 64, 64) in [-1, 1] -> logits of the animal, of the count 1..8, and of the activity, the last being none."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (len(ALL_ANIMALS) + 1, max(COUNTS), len(ALL_ACTIVITIES) + 1)
        widths = (3, 32, 64, 128, 192)
        self.features = nn.Sequential(*(block(i, o) for i, o in pairwise(widths)), block(192, 192, stride=1))
        self.head = nn.Linear(192 * 4 * 4, sum(self.sizes))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.head(self.features(images).flatten(1)).split(self.sizes, 1)


def block(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.SiLU())


def train(scenes: dataset.Scenes, out: Path) -> None:
    torch.manual_seed(SEED)
    rng, judge = np.random.default_rng(SEED), Judge().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    labels, usable = targets(scenes)
    usable = usable[usable < len(scenes.images) - dataset.NUM_HELD_OUT]
    for step in range(STEPS):
        rows = np.sort(rng.choice(usable, BATCH, replace=False))
        with torch.autocast("cpu", torch.bfloat16):
            logits = judge(degraded(to_tensor(scenes.images[rows]), rng))
        loss = sum(F.cross_entropy(each.float(), labels[rows, i], label_smoothing=0.05) for i, each in enumerate(logits))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            print(f"{step + 1} loss {loss.item():.3f}", flush=True)
    judge.eval()
    _, everything = targets(scenes)
    held_out = everything[everything >= len(scenes.images) - dataset.NUM_HELD_OUT]
    with torch.no_grad():
        right = [
            (each.argmax(1) == labels[held_out, i]).float().mean()
            for i, each in enumerate(judge(to_tensor(scenes.images[held_out])))
        ]
    print("held-out renderings: animal {:.3f} count {:.3f} activity {:.3f}".format(*right))
    save_file({name: value.contiguous() for name, value in judge.state_dict().items()}, out)


def targets(scenes: dataset.Scenes) -> tuple[Tensor, np.ndarray]:
    """Class numbers (N, 3), and the scenes that have one kind of thing in them."""
    animal, count, activity = torch.from_numpy(scenes.labels).T
    classes = torch.stack([animal % (len(ALL_ANIMALS) + 1), count - 1, activity % (len(ALL_ACTIVITIES) + 1)], 1)
    alone = [i for i, caption in enumerate(scenes.captions) if " and " not in caption and " with " not in caption]
    return classes, np.array(alone)


def degraded(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Blurred, noisy, of another contrast: as a young model's pictures are."""
    if rng.random() < 0.6:
        small = F.interpolate(images, size=int(rng.integers(22, 48)), mode="bilinear", antialias=True)
        images = F.interpolate(small, size=images.shape[-1], mode="bilinear")
    if rng.random() < 0.6:
        images = images + rng.uniform(0, 0.2) * torch.from_numpy(rng.standard_normal(images.shape, np.float32))
    if rng.random() < 0.4:
        images = images * rng.uniform(0.6, 1) + rng.uniform(-0.1, 0.1)
    return images.contiguous(memory_format=torch.channels_last)


def loaded(path: Path) -> Judge:
    judge = Judge().to(memory_format=torch.channels_last)
    judge.load_state_dict(load_file(path))
    return judge.eval()


@torch.no_grad()
def sampled(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int) -> Tensor:
    """(B, 3, 64, 64) in [-1, 1], at the demo's own setting: 8 trailing steps with noise, no guidance."""
    images = []
    for start in range(0, len(prompts), 60):
        part = prompts[start : start + 60]
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        output = pipeline(
            part, num_inference_steps=8, guidance_scale=1.0, eta=1.0, generator=generators, output_type="pt", height=64, width=64
        )
        images.append(output.images * 2 - 1)
    return torch.cat(images)


@torch.no_grad()
def score(judge: Judge, pipeline: StableDiffusionPipeline, per_prompt: int, grid: Path | None) -> None:
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    names = list(ANIMALS)
    prompts = [with_article(name) for name in names for _ in range(per_prompt)]
    images = sampled(pipeline, prompts, SEED)
    wanted = torch.arange(len(names)).repeat_interleave(per_prompt)
    right = (judge(images)[0].argmax(1) == wanted).float().view(len(names), per_prompt).mean(1)
    print(
        f"single animals: {right.mean():.3f} of {len(prompts)} samples named; least "
        + ", ".join(f"{names[i]} {right[i]:.2f}" for i in right.argsort()[:8])
    )
    pairs = [(name, activity) for name in names for activity in ACTIVITIES]
    animal, _, activity = judge(sampled(pipeline, [f"{with_article(name)} {what}" for name, what in pairs], SEED + 1))
    doing = activity.argmax(1) == torch.tensor([list(ALL_ACTIVITIES).index(what) for _, what in pairs])
    same = animal.argmax(1) == torch.tensor([names.index(name) for name, _ in pairs])
    print(
        f"activities: activity {doing.float().mean():.3f}, animal {same.float().mean():.3f}, both {(doing & same).float().mean():.3f} of {len(pairs)}"
    )
    herds = [(name, n) for name in names for n in COUNTS]
    animal, count, _ = judge(sampled(pipeline, [f"{number_word(n)} {plural(name)}" for name, n in herds], SEED + 2))
    counted = count.argmax(1) + 1 == torch.tensor([n for _, n in herds])
    same = animal.argmax(1) == torch.tensor([names.index(name) for name, _ in herds])
    print(
        f"counts: count {counted.float().mean():.3f}, animal {same.float().mean():.3f}, both {(counted & same).float().mean():.3f} of {len(herds)}"
    )
    if grid:
        chosen = images.view(len(names), per_prompt, *images.shape[1:])[:, :GRID_SAMPLES]
        rows = [
            torch.cat(list(chosen[start : start + 15].transpose(0, 1).flatten(0, 1)), 2) for start in range(0, len(names), 15)
        ]
        strips = [part for row in rows for part in row.split(15 * 64, 2)]
        pixels = ((torch.cat(strips, 1).clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("act", choices=["train", "score"])
    parser.add_argument("--scenes", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--pipeline", type=Path)
    parser.add_argument("--per-prompt", type=int, default=20)
    parser.add_argument("--grid", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.act == "train":
        train(dataset.load(args.scenes), args.out)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(args.pipeline, dtype=torch.float32)
        score(loaded(args.judge), pipeline, args.per_prompt, args.grid)


if __name__ == "__main__":
    main()
