"""Checks whether a family can train a pipeline, from its configuration files alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rediffuse.errors import ConfigError

SUPPORTED = (
    "This family trains text-to-image models of Stable Diffusion 1.x and 2.x and of the"
    " same classes."
)
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")
OF_PIXELS = (
    "This family trains models of diffusers' DDPMPipeline: a UNet2DModel that makes images from"
    " noise alone, and a scheduler of DDPM or DDIM."
)
PIXEL_PIPELINES = ("DDPMPipeline", "DDIMPipeline")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
ADAPTER = (
    "holds an adapter (LoRA), not a model. Give the base model that it was trained on; an adapter"
    " to start from cannot be given yet."
)
ADAPTERS = ("pytorch_lora_weights.safetensors", "adapter_config.json")


def refuse_other_kinds(
    folder: Path,
    size_pixels: int | None,
    prediction: str | None = None,
    instead: Mapping[str, str | None] | None = None,
) -> None:
    """Refuses pipelines of other kinds. Missing files are not checked.

    Args:
        folder: The pipeline's folder.
        size_pixels: The option of that name; if None, the U-Net's configuration must give a square
            size.
        prediction: The option of that name, which replaces the scheduler's `prediction_type`.
        instead: Folders of the parts that options name instead of the pipeline's own.

    Raises:
        ConfigError: If the pipeline is of another kind; the message names it.
    """
    if any((folder / name).is_file() for name in ADAPTERS):
        raise ConfigError(f"model.source: {folder} {ADAPTER}")
    parts = {
        part: _config(folder / part / "config.json") for part in ("unet", "vae", "text_encoder")
    }
    for part, place in (instead or {}).items():
        if place:
            parts[part] = _config(Path(place) / part / "config.json") or _config(
                Path(place) / "config.json"
            )
    scheduler = _config(folder / "scheduler" / "scheduler_config.json")
    if prediction:
        scheduler = {**scheduler, "prediction_type": prediction}
    problem = next(
        iter(_problems(_config(folder / "model_index.json"), **parts, scheduler=scheduler)), None
    )
    if problem:
        raise ConfigError(f"model.source: {folder} {problem} {SUPPORTED}")
    size = parts["unet"].get("sample_size", 64)
    if size_pixels is None and not isinstance(size, int):
        said = (
            "does not say which size it was trained at"
            if size is None
            else "was trained on images that are not square"
        )
        raise ConfigError(
            f"model.size_pixels: {folder} {said}. Give the height and width of the images:"
            " --model.size-pixels 512"
        )


def part_of_pixels(folder: Path, part: str) -> Path:
    """Returns the folder of a part; the oldest pipelines have all their files in one folder."""
    return folder / part if (folder / part).is_dir() else folder


def refuse_other_than_pixels(folder: Path) -> None:
    """Raises ConfigError if the pipeline in `folder` is not an unconditional one in pixel space.
    Missing files are ignored here.
    """
    if any((folder / name).is_file() for name in ADAPTERS):
        raise ConfigError(f"model.source: {folder} {ADAPTER}")
    index = _config(folder / "model_index.json")
    unet = _config(part_of_pixels(folder, "unet") / "config.json")
    scheduler = _config(part_of_pixels(folder, "scheduler") / "scheduler_config.json")
    for problem in (*_problems_of_pixels(index, unet), *_of_scheduler(scheduler)):
        raise ConfigError(f"model.source: {folder} {problem} {OF_PIXELS}")


def _problems_of_pixels(index: Mapping[str, Any], unet: Mapping[str, Any]) -> Iterator[str]:
    """The most telling first."""
    pipeline = index.get("_class_name", PIXEL_PIPELINES[0])
    if pipeline not in PIXEL_PIPELINES:
        yield f"is a {pipeline}."
    if unet.get("_class_name", "UNet2DModel") != "UNet2DModel":
        yield f"has a {unet['_class_name']}, where UNet2DModel is needed."
    if unet.get("class_embed_type") or unet.get("num_class_embeds"):
        yield "is class-conditional, which this family does not support."
    if unet.get("in_channels", 3) not in (1, 3):
        yield (
            f"makes images of {unet['in_channels']} channels; 3 are supported, or 1 for grey"
            " images."
        )
    if unet.get("out_channels", 3) != unet.get("in_channels", 3):
        yield (
            f"predicts {unet.get('out_channels', 3)} channels of {unet.get('in_channels', 3)}: a"
            " learned variance, which is not supported."
        )
    if unet and not unet.get("sample_size"):
        yield "does not say which size it was trained at (unet/config.json: sample_size)."


def refuse_other_files(place: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuses single files of other kinds of models.

    Args:
        place: The file, for the message.
        shapes: The shapes of its tensors, by name.

    Raises:
        ConfigError: If the model is of another kind; the message names it.
    """
    if any(".lora_" in name or "lora_down" in name for name in shapes):
        raise ConfigError(f"model.source: {place} {ADAPTER}")
    first = next(
        (
            shape
            for name, shape in shapes.items()
            if name.endswith("model.diffusion_model.input_blocks.0.0.weight")
        ),
        (0, 4),
    )
    kinds = {
        9: "an inpainting model",
        8: "an image-editing model, as InstructPix2Pix",
        5: "a depth-to-image model",
    }
    found = [
        (
            "is Stable Diffusion XL.",
            any(name.startswith("conditioner.embedders.") for name in shapes),
        ),
        (
            "has a transformer, as Stable Diffusion 3 and FLUX, where a U-Net is needed.",
            any(map(_of_transformer, shapes)),
        ),
        (
            "takes a class label besides the text, as upscalers do.",
            any(".label_emb." in name for name in shapes),
        ),
        (f"is {kinds.get(first[1])}: its U-Net takes {first[1]} channels.", first[1] in kinds),
    ]
    for what, true in found:
        if true:
            raise ConfigError(f"model.source: {place} {what} {SUPPORTED}")


def _of_transformer(name: str) -> bool:
    return any(word in name for word in (".joint_blocks.", ".double_blocks.", "double_blocks.0."))


def _problems(
    index: Mapping[str, Any],
    unet: Mapping[str, Any],
    vae: Mapping[str, Any],
    text_encoder: Mapping[str, Any],
    scheduler: Mapping[str, Any],
) -> Iterator[str]:
    """Yields what prevents training, the most informative first."""
    pipeline = index.get("_class_name", PIPELINES[0])
    if unet.get("addition_embed_type") not in (None, "text"):  # text: from the same embedding
        yield (
            "is Stable Diffusion XL or a model like it: its U-Net takes a size and a second text"
            " embedding besides."
        )
    if unet.get("class_embed_type") or unet.get("num_class_embeds"):
        yield "takes a class label besides the text, as upscalers do."
    if unet.get("time_cond_proj_dim"):
        yield "is a latent consistency model: its U-Net takes the guidance scale as an input."
    channels, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    if channels != latents:
        kind = {
            2 * latents + 1: "an inpainting model",
            2 * latents: "an image-editing model, as InstructPix2Pix",
        }.get(channels)
        yield (
            f"is {kind or 'inconsistent'}: its U-Net takes {channels} channels, and its"
            f" autoencoder has {latents}."
        )
    if unet.get("out_channels", 4) != channels:
        yield (
            f"predicts {unet['out_channels']} channels of {channels}: a learned variance, which"
            " is not supported."
        )
    if pipeline not in PIPELINES:
        yield f"is a {pipeline}."
    for part, config, kind in (
        ("unet", unet, "UNet2DConditionModel"),
        ("vae", vae, "AutoencoderKL"),
    ):
        if config.get("_class_name", kind) != kind:
            yield f"has a {config['_class_name']} as its {part}, where {kind} is needed."
    width, hidden = unet.get("cross_attention_dim"), text_encoder.get("hidden_size")
    if isinstance(width, int) and hidden and width != hidden:
        yield (
            f"mixes two models: its U-Net reads text embeddings of {width} numbers, and its text"
            f" encoder gives {hidden}."
        )
    yield from _of_scheduler(scheduler)


def _of_scheduler(scheduler: Mapping[str, Any]) -> Iterator[str]:
    name = str(scheduler.get("_class_name", ""))
    predicts = scheduler.get("prediction_type", "epsilon")
    if name.startswith("FlowMatch") or predicts == "flow_prediction":
        yield "is a flow-matching model by its scheduler."
    if name.startswith("LCM"):
        yield "is a latent consistency model by its scheduler, distilled to a few steps."
    if predicts not in PREDICTIONS:
        yield f"predicts {predicts!r}; there are {', '.join(PREDICTIONS)} (--model.prediction)."
    if scheduler.get("thresholding"):
        yield (
            "thresholds its clean samples, which is not supported (scheduler_config.json: set"
            " thresholding to false)."
        )
    if scheduler.get("beta_schedule", SCHEDULES[0]) not in SCHEDULES and not scheduler.get(
        "trained_betas"
    ):
        yield (
            f"has the beta_schedule {scheduler['beta_schedule']!r}; there are"
            f" {', '.join(SCHEDULES)}."
        )


def _config(path: Path) -> Mapping[str, Any]:
    """Reads a JSON file; empty if it does not exist. Raises ConfigError if it is not JSON."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"model.source: {path} is not JSON: {error}.") from error
    return content if isinstance(content, dict) else {}
