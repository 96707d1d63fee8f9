"""Where the parts of a pipeline of Stable Diffusion come from: a folder as diffusers saves it, the
Hugging Face Hub, or a single file.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTokenizer

from rediffuse.errors import ConfigError
from rediffuse.hub import snapshots as hub
from rediffuse.hub.weights import refuse_not_filled
from rediffuse.models._compatible import refuse_other_files, refuse_other_kinds
from rediffuse.models._folders import PipelineFolder, reading_pipeline

PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
"""Of the tensors of a single file."""


@dataclass(frozen=True)
class Networks:
    """Of the classes that Stable Diffusion is made of."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler


@dataclass(frozen=True)
class Source(PipelineFolder):
    """A pipeline of Stable Diffusion, as a folder or a single file.

    Attributes:
        place: a folder, an id of the Hub, or a .safetensors file.
        config: of a single file, the folder or id it is one of.
        prediction: what the network predicts, where its scheduler's configuration is not to be
            believed.
    """

    config: str | None = None
    prediction: str | None = None
    size_pixels: int | None = None
    vae: str | None = None
    text_encoder: str | None = None
    weights: ClassVar = {
        "unet": "diffusion_pytorch_model",
        "vae": "diffusion_pytorch_model",
        "text_encoder": "model",
    }
    pickled: ClassVar = {
        "unet": "diffusion_pytorch_model.bin",
        "vae": "diffusion_pytorch_model.bin",
        "text_encoder": "pytorch_model.bin",
    }
    others: ClassVar = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}
    configurations: ClassVar = ("model_index.json", "*/*.json", "*/merges.txt")

    def networks(self, dtype: torch.dtype) -> Networks:
        """Loads all networks, in that precision. Raises ConfigError where weights are missing."""
        if self._is_file():
            return self._of_single_file(dtype)
        folder = self.folder
        self.refuse_other_kinds(folder)
        with reading_pipeline(folder / "text_encoder"):
            text_encoder = self.whole(CLIPTextModel, "text_encoder", dtype)
        with reading_pipeline(folder / "tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        with reading_pipeline(folder / "scheduler"):
            scheduler = self._scheduler(DDIMScheduler.load_config(folder, subfolder="scheduler"))
        with reading_pipeline(folder / "vae"):
            vae = self.whole(AutoencoderKL, "vae", dtype)
        return Networks(self.unet(dtype), vae, text_encoder, tokenizer, scheduler)

    def unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        """The pretrained one, anew each time."""
        if self._is_file():
            return self._of_single_file(dtype).unet
        with reading_pipeline(self.folder / "unet"):
            return self.whole(UNet2DConditionModel, "unet", dtype)

    def _folder_of(self, part: str) -> Path:
        """The source's, or that which its own option names: such a folder, or a pipeline's."""
        place = self._instead(part)
        if place is None:
            return super()._folder_of(part)
        found = [
            folder
            for folder in (Path(place) / part, Path(place))
            if (folder / "config.json").is_file()
        ]
        if not found:
            raise ConfigError(
                f"model.{part}: {place} is no folder on this machine with a {part} (config.json and"
                f" its weights). To get one: hf download REPOSITORY --include '{part}/*'"
                " --local-dir DIR"
            )
        return found[0]

    def refuse_other_kinds(self, folder: Path) -> None:
        refuse_other_kinds(
            folder,
            self.size_pixels,
            self.prediction,
            {"vae": self.vae, "text_encoder": self.text_encoder},
        )

    def _instead(self, part: str) -> str | None:
        return {"vae": self.vae, "text_encoder": self.text_encoder}.get(part)

    def _needed(self, path: Path, parts: Sequence[str]) -> list[tuple[str, str]]:
        whole = (path / "tokenizer" / "tokenizer.json").exists()
        words = ("tokenizer.json",) if whole else ("vocab.json", "merges.txt")
        return [*super()._needed(path, parts), *(("tokenizer", name) for name in words)]

    @property
    def commit(self) -> str | None:
        return None if self._is_file() else super().commit

    def _is_file(self) -> bool:
        path = Path(self.place)
        if path.suffix in (".safetensors", ".ckpt") and not path.is_file():
            raise ConfigError(f"model.source: no file {self.place}.")
        if path.is_file() and path.suffix != ".safetensors" and not self.allow_pickle:
            raise ConfigError(
                f"model.source: {self.place} is not a .safetensors file; others may run any code"
                " when they are read. Look for the same model as .safetensors or, if you trust"
                " whoever made it, add --model.allow-pickle true."
            )
        return path.is_file()

    def _of_single_file(self, dtype: torch.dtype) -> Networks:
        self._refuse_other_files()
        config = self._config_folder()
        with reading_pipeline(Path(self.place)):
            from diffusers import StableDiffusionPipeline

            kinds = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel}
            others = {
                part: self.whole(kind, part, dtype)
                for part, kind in kinds.items()
                if self._instead(part)
            }
            pipeline = StableDiffusionPipeline.from_single_file(
                self.place, config=str(config), torch_dtype=dtype, safety_checker=None, **others
            )
        for part in self.weights:
            refuse_not_filled("model.source", self.place, getattr(pipeline, part))
        if self.text_encoder is None:
            self._refuse_without_text_encoder(pipeline.text_encoder)
        scheduler = self._scheduler(pipeline.scheduler.config)
        return Networks(
            pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.tokenizer, scheduler
        )

    def _refuse_other_files(self) -> None:
        """Adapters, models of other kinds, and files that lack a part, by the names of their
        tensors.
        """
        shapes = self._shapes
        refuse_other_files(self.place, shapes)
        for part, begin in PREFIXES.items():
            if (
                shapes
                and self._instead(part) is None
                and not any(name.startswith(begin) for name in shapes)
            ):
                option = (
                    ""
                    if part == "unet"
                    else ", or take this part from another folder:"
                    f" --model.{part.replace('_', '-')} FOLDER"
                )
                raise ConfigError(
                    f"model.source: {self.place} holds no {part}. Give a file that holds the whole"
                    f" model{option}."
                )

    @cached_property
    def _shapes(self) -> dict[str, Sequence[int]]:
        """Of the single file's tensors, by their names, from its header; none of a pickle."""
        if Path(self.place).suffix != ".safetensors":
            return {}
        with reading_pipeline(Path(self.place)), safe_open(self.place, "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118

    def _refuse_without_text_encoder(self, network: CLIPTextModel) -> None:
        """diffusers gives random values to what a single file lacks of it, and does not say so."""
        here = self._shapes.keys()
        if missing := sorted(_text_encoder_names(network, here) - here) if here else []:
            raise ConfigError(
                f"model.source: {self.place} lacks {len(missing)} tensors of its text encoder,"
                f" first {missing[0]}."
            )

    def _scheduler(self, config: dict[str, Any]) -> DDIMScheduler:
        return ddim({**config, "prediction_type": self.prediction} if self.prediction else config)

    def _config_folder(self) -> Path:
        """Of the configurations that a single file lacks; diffusers knows whose they are by the
        names of its weights.
        """
        place = self.config
        if place is None:
            with reading_pipeline(Path(self.place)):
                from diffusers.loaders.single_file_utils import (
                    fetch_diffusers_config,
                    load_single_file_checkpoint,
                )

                place = fetch_diffusers_config(load_single_file_checkpoint(self.place))[
                    "pretrained_model_name_or_path"
                ]
        return (
            Path(place)
            if Path(place).is_dir()
            else hub.snapshot("model.config", place, None, self.configurations)
        )


def _text_encoder_names(network: CLIPTextModel, here: Collection[str]) -> set[str]:
    """Of its tensors in the original layouts: transformers' names in Stable Diffusion 1.x,
    OpenCLIP's in 2.x.
    """
    if any(name.startswith("cond_stage_model.model.") for name in here):
        layers = [
            f"transformer.resblocks.{layer}.{part}.{kind}"
            for layer in range(network.config.num_hidden_layers)
            for part in ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")
            for kind in ("weight", "bias")
        ]
        return {
            f"cond_stage_model.model.{name}"
            for name in (*layers, "token_embedding.weight", "positional_embedding")
        }
    names = (
        name.removeprefix("text_model.")
        for name in network.state_dict()
        if not name.endswith("position_ids")
    )
    return {f"cond_stage_model.transformer.text_model.{name}" for name in names}


def ddim(config: dict[str, Any]) -> DDIMScheduler:
    """A scheduler whose configuration says nothing of it does not clip latents, which have no
    range.
    """
    scheduler: DDIMScheduler = DDIMScheduler.from_config({"clip_sample": False, **config})
    return scheduler
