"""Two networks that name what is in a picture: one to train on, and another, held out, to tell whether it was fooled.

python -m pretraining.judge train resnet --scenes WORK/scenes --out src/rediffuse/rewards/_emoji/trained
python -m pretraining.judge train convnext --scenes WORK/scenes --out src/rediffuse/rewards/_emoji/held_out
python -m pretraining.judge score src/rediffuse/rewards/_emoji/trained --pipeline src/rediffuse/models/emoji/pipeline --grid WORK/grid.png
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
)

from pretraining import dataset
from pretraining.scenes import number_word, plural
from pretraining.train_vae import to_tensor
from pretraining.vocabulary import ACTIVITIES, ALL_ACTIVITIES, ALL_ANIMALS, ANIMALS, COUNTS
from rediffuse.english import with_article

LABELS = {
    "animal": [*ALL_ANIMALS, "none"],
    "count": [str(n) for n in range(1, max(COUNTS) + 1)],
    "activity": [*ALL_ACTIVITIES, "none"],
}
"""What a judge says of a picture: one label of each; a network's outputs are their logits, one after the other."""
SHIPPED = {"resnet": "trained", "convnext": "held_out"}
SEEDS = {"resnet": 5, "convnext": 6}
RATES = {"resnet": 3e-3, "convnext": 2e-3}
STEPS, BATCH = 3000, 96
SAMPLE_SEED = 5
GRID_SAMPLES = 3


def network(kind: str) -> PreTrainedModel:
    """Half a million parameters: images (B, 3, 64, 64) in [-1, 1] -> logits (B, all labels)."""
    spelt = {
        i: f"{attribute}: {name}"
        for i, (attribute, name) in enumerate((a, n) for a in LABELS for n in LABELS[a])
    }
    labels = {"id2label": spelt, "label2id": {name: i for i, name in spelt.items()}}
    if kind == "resnet":
        sizes = {"embedding_size": 32, "hidden_sizes": [48, 96, 160], "depths": [1, 1, 1]}
        return ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic", **labels))
    return ConvNextForImageClassification(
        ConvNextConfig(
            hidden_sizes=[64, 96, 160],
            depths=[2, 2, 1],
            num_stages=3,
            drop_path_rate=0.05,
            **labels,
        )
    )


def named(judge: PreTrainedModel, images: Tensor) -> tuple[Tensor, ...]:
    """Logits of the animal, of the count 1..8, and of the activity."""
    return judge(images).logits.split([len(names) for names in LABELS.values()], 1)


def train(kind: str, scenes: dataset.Scenes, out: Path) -> None:
    """Writes half-precision weights and, in config.json, the labels."""
    torch.manual_seed(SEEDS[kind])
    rng, judge = (
        np.random.default_rng(SEEDS[kind]),
        network(kind).to(memory_format=torch.channels_last),
    )
    print(f"{kind}: {sum(each.numel() for each in judge.parameters()):,} parameters")
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATES[kind], STEPS)
    labels, usable = targets(scenes)
    usable = usable[usable < len(scenes.images) - dataset.NUM_HELD_OUT]
    for step in range(STEPS):
        rows = np.sort(rng.choice(usable, BATCH, replace=False))
        with torch.autocast("cpu", torch.bfloat16):
            logits = named(judge, degraded(to_tensor(scenes.images[rows]), rng))
        loss = sum(
            F.cross_entropy(each.float(), labels[rows, i], label_smoothing=0.05)
            for i, each in enumerate(logits)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            print(f"{step + 1} loss {loss.item():.3f}", flush=True)
    judge.half().save_pretrained(out)
    report(load(out), scenes)


@torch.no_grad()
def report(judge: PreTrainedModel, scenes: dataset.Scenes) -> None:
    """On held-out renderings, as they are and degraded; of the counts and activities, on scenes that have one."""
    labels, everything = targets(scenes)
    held_out = everything[everything >= len(scenes.images) - dataset.NUM_HELD_OUT]
    of = {
        "animal": labels[:, 0] < len(ALL_ANIMALS),
        "count": labels[:, 1] > 0,
        "activity": labels[:, 2] < len(ALL_ACTIVITIES),
    }
    for how in ("as they are", "degraded"):
        images = to_tensor(scenes.images[held_out])
        if how == "degraded":
            rng = np.random.default_rng(0)
            images = torch.cat([degraded(each, rng) for each in images.split(10)])
        said = [each.argmax(1) for each in named(judge, images)]
        right = {
            name: (said[i] == labels[held_out, i])[of[name][held_out]].float()
            for i, name in enumerate(LABELS)
        }
        print(
            f"held-out renderings {how}: "
            + ", ".join(
                f"{name} {of_it.mean():.3f} of {len(of_it)}" for name, of_it in right.items()
            )
        )


def targets(scenes: dataset.Scenes) -> tuple[Tensor, np.ndarray]:
    """Class numbers (N, 3), and the scenes that have one kind of thing in them."""
    animal, count, activity = torch.from_numpy(scenes.labels).T
    classes = torch.stack(
        [animal % (len(ALL_ANIMALS) + 1), count - 1, activity % (len(ALL_ACTIVITIES) + 1)], 1
    )
    alone = [
        i
        for i, caption in enumerate(scenes.captions)
        if " and " not in caption and " with " not in caption
    ]
    return classes, np.array(alone)


def degraded(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Blurred, noisy, of another contrast: as a young model's pictures are."""
    if rng.random() < 0.6:
        small = F.interpolate(
            images, size=int(rng.integers(22, 48)), mode="bilinear", antialias=True
        )
        images = F.interpolate(small, size=images.shape[-1], mode="bilinear")
    if rng.random() < 0.6:
        images = images + rng.uniform(0, 0.2) * torch.from_numpy(
            rng.standard_normal(images.shape, np.float32)
        )
    if rng.random() < 0.4:
        images = images * rng.uniform(0.6, 1) + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.3:  # something in front of it
        side = int(rng.integers(8, 20))
        x, y = rng.integers(0, images.shape[-1] - side, 2)
        images = images.clone()
        images[..., y : y + side, x : x + side] = torch.from_numpy(
            rng.uniform(-1, 1, (len(images), 3, 1, 1)).astype(np.float32)
        )
    return images.contiguous(memory_format=torch.channels_last)


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def sampled(pipeline: StableDiffusionPipeline, prompts: list[str], seed: int) -> Tensor:
    """(B, 3, 64, 64) in [-1, 1], at the demo's own setting: 8 trailing steps with noise, no guidance."""
    images = []
    for start in range(0, len(prompts), 60):
        part = prompts[start : start + 60]
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        output = pipeline(
            part,
            num_inference_steps=8,
            guidance_scale=1.0,
            eta=1.0,
            generator=generators,
            output_type="pt",
            height=64,
            width=64,
        )
        images.append(output.images * 2 - 1)
    return torch.cat(images)


@torch.no_grad()
def score(
    judge: PreTrainedModel, pipeline: StableDiffusionPipeline, per_prompt: int, grid: Path | None
) -> None:
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    names = list(ANIMALS)
    prompts = [with_article(name) for name in names for _ in range(per_prompt)]
    images = sampled(pipeline, prompts, SAMPLE_SEED)
    wanted = torch.arange(len(names)).repeat_interleave(per_prompt)
    right = (
        (named(judge, images)[0].argmax(1) == wanted).float().view(len(names), per_prompt).mean(1)
    )
    print(
        f"single animals: {right.mean():.3f} of {len(prompts)} samples named; least "
        + ", ".join(f"{names[i]} {right[i]:.2f}" for i in right.argsort()[:8])
    )
    pairs = [(name, activity) for name in names for activity in ACTIVITIES]
    animal, _, activity = named(
        judge,
        sampled(
            pipeline, [f"{with_article(name)} {what}" for name, what in pairs], SAMPLE_SEED + 1
        ),
    )
    doing = activity.argmax(1) == torch.tensor(
        [list(ALL_ACTIVITIES).index(what) for _, what in pairs]
    )
    same = animal.argmax(1) == torch.tensor([names.index(name) for name, _ in pairs])
    print(
        f"activities: activity {doing.float().mean():.3f}, animal {same.float().mean():.3f}, both {(doing & same).float().mean():.3f} of {len(pairs)}"
    )
    herds = [(name, n) for name in names for n in COUNTS]
    animal, count, _ = named(
        judge,
        sampled(
            pipeline, [f"{number_word(n)} {plural(name)}" for name, n in herds], SAMPLE_SEED + 2
        ),
    )
    counted = count.argmax(1) + 1 == torch.tensor([n for _, n in herds])
    same = animal.argmax(1) == torch.tensor([names.index(name) for name, _ in herds])
    print(
        f"counts: count {counted.float().mean():.3f}, animal {same.float().mean():.3f}, both {(counted & same).float().mean():.3f} of {len(herds)}"
    )
    if grid:
        chosen = images.view(len(names), per_prompt, *images.shape[1:])[:, :GRID_SAMPLES]
        rows = [
            torch.cat(list(chosen[start : start + 15].transpose(0, 1).flatten(0, 1)), 2)
            for start in range(0, len(names), 15)
        ]
        strips = [part for row in rows for part in row.split(15 * 64, 2)]
        pixels = ((torch.cat(strips, 1).clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(grid)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    acts = parser.add_subparsers(dest="act", required=True)
    learn = acts.add_parser("train")
    learn.add_argument("kind", choices=list(SEEDS))
    learn.add_argument("--scenes", type=Path, required=True)
    learn.add_argument("--out", type=Path, required=True)
    ask = acts.add_parser("score")
    ask.add_argument("judge", type=Path)
    ask.add_argument("--pipeline", type=Path, required=True)
    ask.add_argument("--per-prompt", type=int, default=20)
    ask.add_argument("--grid", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.act == "train":
        train(args.kind, dataset.load(args.scenes), args.out)
    else:
        pipeline = StableDiffusionPipeline.from_pretrained(args.pipeline, dtype=torch.float32)
        score(load(args.judge), pipeline, args.per_prompt, args.grid)


if __name__ == "__main__":
    main()
