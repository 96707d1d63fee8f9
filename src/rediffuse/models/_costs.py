"""The costs of this room's models, from the configuration files of their folder or of the Hub's
cache, or from published settings of well-known models. Nothing is downloaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rediffuse.costs.architecture import Architecture, latent_diffusion, pixel_diffusion
from rediffuse.costs.networks import Settings, Unknown
from rediffuse.costs.tape import Learns
from rediffuse.models._compatible import part_of_pixels
from rediffuse.models._options import LatentDiffusionOptions, TrainingOptions

CONFIG = "config.json"
FIRST_TEXT_LAYER = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
"""A tensor of single files, as wide as the text's embedding."""
Parts = dict[str, dict[str, Any]]
"""The settings of each part of a pipeline."""
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
UNET: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
TEXT: dict[str, Any] = {"vocab_size": 49408, "max_position_embeddings": 77}
SD_1: Parts = {
    "unet": {**UNET, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "vae": VAE,
    "text_encoder": {
        **TEXT,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}
SD_2: Parts = {
    "unet": {
        **UNET,
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "vae": VAE,
    "text_encoder": {
        **TEXT,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
    },
}
SD_2_BASE: Parts = {**SD_2, "unet": {**SD_2["unet"], "sample_size": 64}}
BY_TEXT_WIDTH = {768: SD_1, 1024: SD_2}
DDPM_256 = {
    "sample_size": 256,
    "layers_per_block": 2,
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
    "attention_head_dim": None,
}
DDPM_32 = {
    "sample_size": 32,
    "layers_per_block": 2,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
}
KNOWN: dict[str, Parts] = {
    "stable-diffusion-2-1-base": SD_2_BASE,
    "stable-diffusion-2-base": SD_2_BASE,
    "stable-diffusion-2-1": SD_2,
    "stable-diffusion-2": SD_2,
    **{f"stable-diffusion-v1-{number}": SD_1 for number in range(1, 6)},
    **{f"ddpm-{name}-256": {"unet": DDPM_256} for name in ("cat", "church", "bedroom", "celebahq")},
    "ddpm-cifar10-32": {"unet": DDPM_32},
}
"""The settings of well-known models, by the second part of their id on the Hub."""


def of_pipeline(
    options: LatentDiffusionOptions,
    source: str,
    revision: str | None = None,
    instead: Mapping[str, str | None] | None = None,
) -> Architecture | None:
    """Returns the costs of a pipeline of Stable Diffusion's classes; None if they are unknown.

    Args:
        options: The options of the family.
        source: A folder, an id of the Hub, or a single file.
        revision: A revision of the Hub.
        instead: Folders that options name for parts.
    """
    parts = dict(_parts(source, revision, ("unet", "vae", "text_encoder")))
    for part, place in (instead or {}).items():
        if place:
            parts[part] = _read(Path(place) / part / CONFIG) or _read(Path(place) / CONFIG)
    if not all(parts.get(part) for part in ("unet", "vae", "text_encoder")):
        return None
    try:
        return latent_diffusion(
            parts,
            learns(options),
            precision=options.precision,
            guidance_scale=options.guidance_scale,
            size_pixels=options.size_pixels,
            is_checkpointed=options.gradient_checkpointing is True,
        )
    except (Unknown, KeyError, TypeError):  # networks that these counts do not know
        return None


def of_pixels(
    options: TrainingOptions, source: str, revision: str | None = None
) -> Architecture | None:
    """Returns the costs of an unconditional pipeline in pixel space; see `of_pipeline`."""
    parts = _parts(source, revision, ("unet",))
    if not parts.get("unet"):
        return None
    try:
        return pixel_diffusion(
            parts["unet"],
            learns(options),
            precision=options.precision,
            is_checkpointed=options.gradient_checkpointing is True,
        )
    except (Unknown, KeyError, TypeError):
        return None


def learns(options: TrainingOptions) -> Learns:
    """Returns what of the network is trained."""
    if options.train == "full":
        return Learns()
    return Learns(options.lora_rank, options.lora_targets)


def _parts(source: str, revision: str | None, names: tuple[str, ...]) -> Mapping[str, Settings]:
    """Returns the configurations that are found; those of a folder go before known ones."""
    place = Path(source)
    if place.is_file():
        return BY_TEXT_WIDTH.get(_text_width(place), {})
    folder = place if place.is_dir() else _cached(source, revision)
    if folder is not None:
        found = {name: _read(part_of_pixels(folder, name) / CONFIG) for name in names}
        if all(found.values()):
            return found
    return {} if place.is_dir() else KNOWN.get(source.rpartition("/")[2], {})


def _cached(source: str, revision: str | None) -> Path | None:
    from rediffuse.hub.snapshots import cached

    return cached(source, revision)


def _text_width(file: Path) -> int:
    """Of a single .safetensors file, by its header; 0 if it says nothing."""
    if file.suffix != ".safetensors":
        return 0
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(min(size, 100_000_000)))
        except ValueError:
            return 0
    return int(header.get(FIRST_TEXT_LAYER, {}).get("shape", (0, 0))[-1])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
