"""Train the autoencoder on crops of scenes; with `--decoder-only` the latents stay as they are.

torchrun --nproc-per-node 2 -m pretraining.train_vae --scenes WORK/scenes --out WORK/vae --steps 6000
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from pretraining import dataset, networks
from pretraining.training import RANK, Trainable, start, trapezoid

CROP_PIXELS = 32
LATENT_NOISE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start-from", type=Path, help="a trained VAE to go on from")
    parser.add_argument("--decoder-only", action="store_true")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=16, help="crops in each process")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--decay-share", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    start(args.seed)
    scenes = dataset.load(args.scenes)
    vae = AutoencoderKL.from_pretrained(args.start_from) if args.start_from else networks.vae()
    vae = vae.train().to(memory_format=torch.channels_last)
    if args.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    training = Trainable(
        [(n, p) for n, p in vae.named_parameters() if p.requires_grad], (0.9, 0.99), 1e-4, 0.998
    )
    training.resume(args.out)
    began = time.time()
    while training.steps < args.steps:
        rng = np.random.default_rng((args.seed, training.steps, RANK))
        pixels = crops(scenes.images, rng, args.batch, whole=training.steps % 8 == 0)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pixels).latent_dist
            latents = posterior.mode()
            noise = torch.from_numpy(rng.standard_normal(latents.shape, np.float32))
            output = vae.decode(latents + LATENT_NOISE * noise).sample
        regularity = (
            2e-3 * latents.float().square().mean()
            + 1e-3 * (posterior.logvar.float() - 2 * np.log(LATENT_NOISE)).square().mean()
        )
        loss = reconstruction_loss(output.float(), pixels)
        training.step(
            loss + (0 if args.decoder_only else regularity),
            trapezoid(training.steps, args.steps, args.learning_rate, 100, args.decay_share),
        )
        if RANK == 0 and training.steps % 200 == 0:
            print(
                f"{training.steps} {time.time() - began:.0f}s loss {loss.item():.4f} latent std {latents.std().item():.3f}",
                flush=True,
            )
        if RANK == 0 and training.steps % 1000 == 0:
            training.save(args.out)
    if RANK == 0:
        training.save(args.out)
        vae.load_state_dict(training.ema, strict=False)
        finish(vae.eval(), scenes.images, args.out, rescale=not args.decoder_only)


def crops(images: np.ndarray, rng: np.random.Generator, batch: int, *, whole: bool) -> Tensor:
    """(batch, 3, 32, 32) in [-1, 1]; or a quarter as many pictures, whole."""
    chosen = np.sort(
        rng.integers(0, len(images) - dataset.NUM_HELD_OUT, batch // 4 if whole else batch)
    )
    pixels = np.stack([images[i] for i in chosen])
    if not whole:
        y, x = 4 * rng.integers(0, (pixels.shape[1] - CROP_PIXELS) // 4 + 1, 2)
        pixels = pixels[:, y : y + CROP_PIXELS, x : x + CROP_PIXELS]
    return to_tensor(pixels)


def to_tensor(pixels: np.ndarray) -> Tensor:
    scaled = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return scaled.to(memory_format=torch.channels_last)


def reconstruction_loss(output: Tensor, pixels: Tensor) -> Tensor:
    """Absolute and squared error, and that of the differences between neighbours, which keeps edges crisp."""
    error = output - pixels
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 4 * F.mse_loss(output, pixels) + 0.3 * edges


@torch.no_grad()
def finish(vae: AutoencoderKL, images: np.ndarray, out: Path, *, rescale: bool) -> None:
    held_out = to_tensor(images[-256:])
    latents = vae.encode(held_out).latent_dist.mode()
    error = ((vae.decode(latents).sample.clamp(-1, 1) - held_out) / 2).square().mean((1, 2, 3))
    psnr = (-10 * torch.log10(error)).mean()
    if rescale:
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    vae.save_pretrained(out)
    print(
        f"PSNR {psnr:.2f} dB on {len(held_out)} held-out scenes; scaling_factor {vae.config.scaling_factor}"
    )


if __name__ == "__main__":
    main()
