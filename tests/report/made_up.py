"""Run folders for the tests of the report, written without training anything."""

import json
import math

import numpy as np
import yaml
from PIL import Image

PROMPTS = ["a cat", "a dog riding a bike", "two owls"]


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def metrics_row(epoch, **more):
    return {
        "epoch": epoch,
        "reward_mean": math.sqrt(epoch),
        "reward_std": 0.5,
        "reward_redness": math.sqrt(epoch),
        "reward_right": 0.5 + 0.4 * epoch / (epoch + 5),
        "masked_rewards": 0,
        "reward_queries": 8 * (epoch + 1),
        "loss": -0.01,
        "approx_kl": 0.01,
        "grad_norm": 2e-4,
        "ratio_drift": 0.0,
        "skipped_updates": 0,
        "seconds_sampling": 10.0,
        "seconds_reward": 1.0,
        "seconds_training": 8.0,
        "images_per_second": 4.0,
        "peak_memory_bytes": 8e8,
        **more,
    }


def reward_row(epoch, index, prompt, **more):
    value = math.sqrt(epoch) + 0.1 * index
    return {
        "epoch": epoch,
        "index": index,
        "prompt": prompt,
        "reward": value,
        "status": "ok",
        "attempts": 1,
        **more,
    }


def look(epoch, num_pictures, **more):
    judged = {
        "mean": 0.1 * epoch,
        "values": [0.1 * epoch + 0.01 * i * epoch for i in range(num_pictures)],
    }
    judged["parts"] = {"right": [None, *[1.0] * (num_pictures - 1)]}
    return {
        "epoch": epoch,
        "seconds": 1.0,
        "held_out": {"emoji_judge": judged},
        "statistics": {"diversity": 0.4, "kl": 2.0 * epoch},
        **more,
    }


def grid(path, columns, rows, side=16, seed=0):
    """Of tiles of one colour each, and a little noise."""
    random = np.random.default_rng(seed)
    colours = random.integers(0, 255, (rows, columns, 3)).repeat(side, 0).repeat(side, 1)
    noise = random.integers(-8, 8, colours.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((colours + noise).clip(0, 255).astype(np.uint8)).save(path)


def samples(path, stages, prompts=PROMPTS, rows=2, side=16):
    (path / "samples").mkdir(parents=True, exist_ok=True)
    (path / "samples" / "prompts.json").write_text(json.dumps(prompts))
    for epoch in stages:
        grid(path / "samples" / f"epoch-{epoch:05d}" / "grid.png", len(prompts), rows, side, epoch)


def run(path, epochs=4, prompts=PROMPTS, side=16, every=1):
    """Everything that a run may hold."""
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "epochs": epochs,
        "prompts_per_epoch": 8,
        "images_per_prompt": 1,
        "learning_rate": 1e-3,
        "model": {"name": "emoji"},
    }
    config |= {"algorithm": {"name": "ddpo_is"}, "reward": {"name": "redness"}}
    (path / "config.yaml").write_text(yaml.safe_dump({**config, "prompts": {"name": "animals"}}))
    lines(path / "metrics.jsonl", [metrics_row(epoch) for epoch in range(epochs)])
    lines(
        path / "rewards.jsonl",
        [
            reward_row(e, i, prompt, notes={"answer": prompt})
            for e in range(epochs)
            for i, prompt in enumerate(prompts)
        ],
    )
    stages = range(0, epochs + 1, every)
    lines(path / "monitor.jsonl", [look(epoch, 2 * len(prompts)) for epoch in stages])
    samples(path, stages, prompts, side=side)
    finding = {"rule": "learning", "level": "good", "text": "It learned.", "numbers": {"z": 3.0}}
    verdict = {
        "headline": "It learned, then went too far.",
        "level": "warning",
        "findings": [finding],
    }
    marks = {"best": epochs // 2, "overoptimised_at": epochs - 1, "suggestion": "Stop earlier."}
    (path / "verdict.json").write_text(json.dumps({**verdict, **marks}))
    evaluation(path / "evaluation", prompts)
    return path


def evaluation(path, prompts):
    grid(path / "unseen.png", len(prompts), 2)
    told = {"before": 2.81, "after": 4.2, "difference": 1.39, "low": 1.2, "high": 1.5}
    suite = {
        "name": "unseen_animals",
        "num_prompts": len(prompts),
        "num_images": 12,
        "trained_on": 0,
        "prompts": prompts,
    }
    rewards = {"redness": told, "emoji_judge": {"error": "why not"}}
    content = {
        "checkpoint": "epoch-00004",
        "images_per_prompt": 4,
        "suites": [{**suite, "grid": "unseen.png", "rewards": rewards}],
    }
    (path / "evaluation.json").write_text(json.dumps(content))
