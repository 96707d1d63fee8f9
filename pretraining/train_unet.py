"""Train the denoiser and the text encoder together on the scenes' latents.

    torchrun --nproc-per-node 2 -m pretraining.train_unet --scenes WORK/scenes --vae WORK/vae --out WORK/unet --steps 15000

`--steps` may be raised and the training goes on; its learning rate falls over the last `--decay-share` of them.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from pretraining import dataset, networks
from pretraining.train_vae import to_tensor
from pretraining.training import RANK, WORLD, Trainable, start, trapezoid

UNCONDITIONAL_SHARE = 0.1
FOCUS_SHARE = 0.75


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start-from", type=Path, help="a shipped model to go on from")
    parser.add_argument("--steps", type=int, default=15000)
    parser.add_argument("--batch", type=int, default=32, help="scenes in each process")
    parser.add_argument("--learning-rate", type=float, default=1.2e-3)
    parser.add_argument("--decay-share", type=float, default=0.35)
    parser.add_argument(
        "--focus",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="three times in four, train on times from LOW to HIGH",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    start(args.seed)
    scenes = dataset.load(args.scenes)
    latents = encoded(args.vae, scenes.images, args.vae / "latents.npy")
    if args.start_from:  # its text encoder knows the numbers of its own tokenizer alone
        CLIPTokenizer.from_pretrained(args.start_from, subfolder="tokenizer").save_pretrained(
            args.out / "tokenizer"
        )
    words = CLIPTokenizer.from_pretrained(args.out / "tokenizer")
    tokens = tokenized(words, scenes.captions)
    empty = tokenized(words, [""])[0]
    unet, text_encoder = networks.unet(), networks.text_encoder(words)
    if args.start_from:
        unet = unet.from_pretrained(args.start_from, subfolder="unet")
        text_encoder = text_encoder.from_pretrained(args.start_from, subfolder="text_encoder")
    unet = unet.train().to(memory_format=torch.channels_last)
    named = [(f"unet.{n}", p) for n, p in unet.named_parameters()]
    named += [(f"text_encoder.{n}", p) for n, p in text_encoder.train().named_parameters()]
    training = Trainable(named, (0.9, 0.99), 0.01, 0.999)
    training.resume(args.out)
    alpha_bar = networks.scheduler().alphas_cumprod
    began, first, average = time.time(), training.steps, 0.0
    while training.steps < args.steps:
        rng = np.random.default_rng((args.seed, training.steps, RANK))
        chosen = np.sort(rng.integers(0, len(latents) - dataset.NUM_HELD_OUT, args.batch))
        clean = torch.from_numpy(latents[chosen]).float().to(memory_format=torch.channels_last)
        prompt = torch.where(
            torch.from_numpy(rng.random(args.batch) < UNCONDITIONAL_SHARE)[:, None],
            empty,
            tokens[chosen],
        )
        time_step = stratified(rng, args.batch, len(alpha_bar))
        if args.focus:
            low, high = args.focus
            most = torch.from_numpy(rng.random(args.batch) < FOCUS_SHARE)
            time_step = torch.where(
                most, low + time_step * (high - low) // len(alpha_bar), time_step
            )
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32))
        signal, spread = (
            each.view(-1, 1, 1, 1)
            for each in (alpha_bar[time_step].sqrt(), (1 - alpha_bar[time_step]).sqrt())
        )
        with torch.autocast("cpu", torch.bfloat16):
            velocity = unet(
                signal * clean + spread * noise, time_step, text_encoder(prompt).last_hidden_state
            ).sample
        loss = (velocity.float() - (signal * noise - spread * clean)).square().mean()
        training.step(
            loss, trapezoid(training.steps, args.steps, args.learning_rate, 200, args.decay_share)
        )
        average = loss.item() if not average else 0.99 * average + 0.01 * loss.item()
        if RANK == 0 and training.steps % 100 == 0:
            rate = (training.steps - first) * args.batch * WORLD / (time.time() - began)
            print(
                f"{training.steps} {time.time() - began:.0f}s loss {average:.4f} {rate:.0f} scenes/s",
                flush=True,
            )
        if RANK == 0 and training.steps % 500 == 0:
            training.save(args.out)
    if RANK == 0:
        training.save(args.out)


def encoded(vae: Path, images: np.ndarray, cache: Path) -> np.ndarray:
    """(N, 4, 16, 16) float16, scaled to unit variance; each process encodes its share the first time."""
    if (
        not cache.exists()
        or cache.stat().st_mtime < (vae / "diffusion_pytorch_model.safetensors").stat().st_mtime
    ):
        network = AutoencoderKL.from_pretrained(vae).eval().to(memory_format=torch.channels_last)
        parts = np.array_split(np.arange(len(images)), WORLD)
        done = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for rows in np.array_split(parts[RANK], max(1, len(parts[RANK]) // 250)):
                done.append(
                    (
                        network.encode(to_tensor(images[rows])).latent_dist.mode().float()
                        * network.config.scaling_factor
                    )
                    .half()
                    .numpy()
                )
        np.save(cache.with_suffix(f".{RANK}.npy"), np.concatenate(done))
        if WORLD > 1:
            torch.distributed.barrier()
        if RANK == 0:
            shares = [cache.with_suffix(f".{rank}.npy") for rank in range(WORLD)]
            whole = cache.with_suffix(".new.npy")
            np.save(whole, np.concatenate([np.load(share) for share in shares]))
            whole.replace(cache)
            for share in shares:
                share.unlink()
        if WORLD > 1:
            torch.distributed.barrier()
    return np.load(cache)


def tokenized(words: CLIPTokenizer, captions: list[str]) -> Tensor:
    return words(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def stratified(rng: np.random.Generator, batch: int, num_times: int) -> Tensor:
    """(batch,) times, one from each of as many equal ranges: the loss varies less from batch to batch."""
    return torch.from_numpy(
        ((rng.permutation(batch) + rng.random(batch)) / batch * num_times).astype(np.int64)
    )


if __name__ == "__main__":
    main()
