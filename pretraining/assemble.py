"""Put the trained parts together as the StableDiffusionPipeline that ships: averaged weights, fp16 safetensors.

python -m pretraining.assemble --vae WORK/vae_decoder --unet WORK/unet --out src/rediffuse/models/emoji/pipeline
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from pretraining import networks

MAX_BYTES = 16_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--unet", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    pipeline = assembled(args.vae, args.unet)
    shutil.rmtree(args.out, ignore_errors=True)
    pipeline.save_pretrained(args.out)
    load_text_encoder_as_fp32(args.out / "text_encoder" / "config.json")
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size:,} bytes")
    assert size <= MAX_BYTES, f"more than {MAX_BYTES:,} bytes"


def load_text_encoder_as_fp32(config: Path) -> None:
    """transformers loads what the file says and diffusers fp32, so that a plain from_pretrained would mix the two."""
    config.write_text(
        json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n"
    )


def assembled(vae: Path, unet: Path) -> StableDiffusionPipeline:
    words = CLIPTokenizer.from_pretrained(unet / "tokenizer")
    parts = {"unet": networks.unet(), "text_encoder": networks.text_encoder(words)}
    tensors = load_file(unet / "training.safetensors")
    for name, network in parts.items():
        prefix = f"ema/{name}."
        averages = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        missing = network.load_state_dict(averages, strict=False).missing_keys
        assert not [key for key in missing if "position_ids" not in key], missing
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae),
        tokenizer=words,
        scheduler=networks.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )
    return pipeline.to(dtype=torch.float16)


if __name__ == "__main__":
    main()
