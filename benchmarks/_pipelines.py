"""Pipelines of random weights in Stable Diffusion's classes, which need no download."""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ANIMALS = (
    "cat", "dog", "horse", "cow", "pig", "sheep", "goat", "lion", "tiger", "bear", "wolf", "fox",
    "rabbit", "mouse", "frog", "snake",
)  # fmt: skip
"""Prompts, each of them one word."""


@dataclass(frozen=True)
class Architecture:
    """The shapes of a pipeline.

    Attributes:
        unet: Options of `UNet2DConditionModel`.
        vae: Options of `AutoencoderKL`.
        text: Options of `CLIPTextConfig`.
        tokens: The number of tokens of a text.
    """

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    tokens: int = 77

    @classmethod
    def of_widths(cls, widths: tuple[int, ...], side: int, text_width: int) -> "Architecture":
        """Returns a small model whose U-Net has these channels on latents of `side` x `side`, and
        attention at all levels but the last, as Stable Diffusion.
        """
        attentive = len(widths) - 1
        unet = {
            "sample_size": side,
            "layers_per_block": 1,
            "block_out_channels": widths,
            "down_block_types": ("CrossAttnDownBlock2D",) * attentive + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * attentive,
            "cross_attention_dim": text_width,
            "attention_head_dim": 8,
            "norm_num_groups": min(32, widths[0]),
        }
        vae = {
            "block_out_channels": (32, 64),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "latent_channels": 4,
            "sample_size": 2 * side,
        }
        text = {
            "hidden_size": text_width,
            "intermediate_size": 37,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
        }
        return cls(unet, vae, text)


ARCHITECTURES = {
    "smallest": Architecture.of_widths((16, 32), 8, 16),
    "tiny": Architecture.of_widths((32, 64), 16, 32),
    "mini": Architecture.of_widths((64, 128, 256), 32, 64),
    "sd15": Architecture(
        unet={
            "sample_size": 64,
            "layers_per_block": 2,
            "block_out_channels": (320, 640, 1280, 1280),
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        vae={
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
            "sample_size": 512,
        },
        text={
            "vocab_size": 49408,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
    ),
}
"""`sd15` has the published shapes of Stable Diffusion 1.5; the others are smaller models of its
classes.
"""


def tokenizer(tokens: int) -> Any:
    """Returns CLIP's tokenizer with letters as its vocabulary, which is no download."""
    from transformers import CLIPTokenizer

    letters = list(string.ascii_lowercase)
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = letters + [f"{letter}</w>" for letter in letters] + special
    numbers = {token: number for number, token in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=numbers, merges=[], model_max_length=tokens)


def build(name: str, folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Path:
    """Writes a pipeline of random weights, unless the folder has it already.

    Args:
        name: A name of ARCHITECTURES.
        folder: Where to write it.
        dtype: The dtype of the weights.
        device: Where the weights are initialised.

    Returns:
        The folder.
    """
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    if (folder / "model_index.json").exists():
        return folder
    shapes = ARCHITECTURES[name]
    words = tokenizer(shapes.tokens)
    special = {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    sizes = {"vocab_size": len(words), "max_position_embeddings": shapes.tokens}
    text = CLIPTextConfig(**{**sizes, **shapes.text, **special})
    torch.manual_seed(0)
    with torch.device(device):
        unet, vae = UNet2DConditionModel(**shapes.unet), AutoencoderKL(**shapes.vae)
        encoder = CLIPTextModel(text)
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=words,
        unet=unet,
        scheduler=DDIMScheduler(
            **schedule, steps_offset=1, clip_sample=False, set_alpha_to_one=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if dtype != torch.float32:
        pipeline = pipeline.to(dtype)
    pipeline.save_pretrained(folder)
    return folder
