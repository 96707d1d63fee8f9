"""Where the parts of a pipeline come from: a folder as diffusers saves it, the Hugging Face Hub, or
a single file.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_log
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_log

from rediffuse.errors import ConfigError
from rediffuse.hub import snapshots as hub
from rediffuse.hub.weights import refuse_incomplete, refuse_not_filled
from rediffuse.models._compatible import refuse_other_files, refuse_other_kinds

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
PICKLED = {
    "unet": "diffusion_pytorch_model.bin",
    "vae": "diffusion_pytorch_model.bin",
    "text_encoder": "pytorch_model.bin",
}
OTHERS = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}
PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.",
}
"""Of the tensors of a single file."""
CONFIGS = ["model_index.json", "*/*.json", "*/merges.txt"]
SHARDS = (".safetensors", "-0*.safetensors")


@dataclass(frozen=True)
class Networks:
    """Of the classes that Stable Diffusion is made of."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler


@dataclass(frozen=True)
class Source:
    """place: a folder, an id of the Hub, or a .safetensors file
    config: of a single file, the folder or id it is one of
    prediction: what the network predicts, where its scheduler's configuration is not to be believed

    Raises ConfigError for whatever is missing, before anything large is read.
    """

    place: str
    revision: str | None = None
    config: str | None = None
    allow_pickle: bool = False
    prediction: str | None = None
    variant: str | None = None
    size_pixels: int | None = None
    vae: str | None = None
    text_encoder: str | None = None

    def networks(self, dtype: torch.dtype) -> Networks:
        """Loads all networks, in that precision. Raises ConfigError where weights are missing."""
        if self._is_file():
            return self._of_single_file(dtype)
        folder = self.folder
        self._refuse_other_kinds(folder)
        with self._reading(folder / "text_encoder"):
            text_encoder = self._whole(CLIPTextModel, "text_encoder", dtype)
        with self._reading(folder / "tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        with self._reading(folder / "scheduler"):
            scheduler = self._scheduler(DDIMScheduler.load_config(folder, subfolder="scheduler"))
        with self._reading(folder / "vae"):
            vae = self._whole(AutoencoderKL, "vae", dtype)
        return Networks(self.unet(dtype), vae, text_encoder, tokenizer, scheduler)

    def unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        """The pretrained one, anew each time."""
        if self._is_file():
            return self._of_single_file(dtype).unet
        with self._reading(self.folder / "unet"):
            return self._whole(UNet2DConditionModel, "unet", dtype)

    def _whole(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        """A network of the folder, each of whose tensors is the file's."""
        weights: dict[str, Any] = {"dtype": dtype, "use_safetensors": not self.allow_pickle or None}
        folder = self._folder_of(part)
        if self.variant and any(folder.glob(f"*.{self.variant}[.-]*")):
            weights["variant"] = self.variant
        network, info = kind.from_pretrained(folder, output_loading_info=True, **weights)
        refuse_incomplete("model.source", folder, network, info)
        return network

    def _folder_of(self, part: str) -> Path:
        """The source's, or that which its own option names: such a folder, or a pipeline's."""
        place = self._instead(part)
        if place is None:
            return self.folder / part
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

    def _refuse_other_kinds(self, folder: Path) -> None:
        refuse_other_kinds(
            folder,
            self.size_pixels,
            self.prediction,
            {"vae": self.vae, "text_encoder": self.text_encoder},
        )

    def _instead(self, part: str) -> str | None:
        return {"vae": self.vae, "text_encoder": self.text_encoder}.get(part)

    @property
    def commit(self) -> str | None:
        """Of the Hub, where the place is an id of it."""
        on_this_machine = self._is_file() or Path(self.place).is_dir()
        return None if on_this_machine else self.folder.name

    @cached_property
    def folder(self) -> Path:
        """Where the parts lie on this machine, whole; from the Hub if need be."""
        path = Path(self.place)
        if not path.is_dir():
            path = self._fetched()
        own = [part for part in WEIGHTS if self._instead(part) is None]
        for part in own:
            self._refuse_without_weights(path, part)
        self._refuse_without_configurations(path, own)
        return path

    def _fetched(self) -> Path:
        """The folder in the Hub's cache; what it is, is judged before gigabytes are fetched."""
        if self.place.startswith((".", "/", "~")) or self.place.endswith((".bin", ".pt", ".pth")):
            raise ConfigError(
                f"model.source: no folder {self.place}; save a pipeline there, or give an id of the"
                " Hub."
            )
        configurations = hub.snapshot("model.source", self.place, self.revision, CONFIGS)
        self._refuse_other_kinds(configurations)
        stems = {f"{part}/{stem}" for part in WEIGHTS for stem in (WEIGHTS[part], self._stem(part))}
        patterns = [*CONFIGS, *(f"{stem}{end}" for stem in sorted(stems) for end in SHARDS)]
        if self.allow_pickle:
            patterns += [f"{part}/{name}" for part, name in PICKLED.items()]
        return hub.snapshot("model.source", self.place, configurations.name, patterns)

    def _refuse_without_weights(self, path: Path, part: str) -> None:
        stem, indices = self._stem(part), [".index.json"]
        if self.variant:
            indices.append(f".index.{self.variant}.json")
        whole = f"{WEIGHTS[part]}.safetensors"
        names = [f"{stem}.safetensors", whole, *(f"{whole}{end}" for end in indices)]
        if any((path / part / name).exists() for name in names):
            return
        pickled = (path / part / PICKLED[part]).exists()
        if pickled and not self.allow_pickle:
            raise ConfigError(
                f"model.source: {path / part} has its weights as a pickle ({PICKLED[part]}), which"
                " may run any code. Look for a revision with .safetensors or, if you trust whoever"
                " made it, add --model.allow-pickle true."
            )
        if not pickled:
            others = sorted(each.name for each in (path / part).glob("*.safetensors"))
            ends = {each.removeprefix(f"{WEIGHTS[part]}.").partition(".")[0] for each in others}
            variants = ends - {"safetensors"}
            only = f", only {', '.join(others)}" if others else ""
            cure = f"A pipeline needs {_parts()}."
            if variants:
                cure = f"Add --model.variant {min(variants)}."
            raise ConfigError(
                f"model.source: {path} has no {part}/{stem}.safetensors{only}. {cure}"
            )

    def _refuse_without_configurations(self, path: Path, parts: Sequence[str]) -> None:
        whole = (path / "tokenizer" / "tokenizer.json").exists()
        words = ("tokenizer.json",) if whole else ("vocab.json", "merges.txt")
        needed = [
            *OTHERS.items(),
            *((part, "config.json") for part in parts),
            *(("tokenizer", name) for name in words),
        ]
        for part, name in needed:
            if not (path / part / name).exists():
                raise ConfigError(
                    f"model.source: {path} has no {part}/{name}. A pipeline needs {_parts()}."
                )

    def _stem(self, part: str) -> str:
        return WEIGHTS[part] + (f".{self.variant}" if self.variant else "")

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
        with self._reading(Path(self.place)):
            from diffusers import StableDiffusionPipeline

            kinds = {"vae": AutoencoderKL, "text_encoder": CLIPTextModel}
            others = {
                part: self._whole(kind, part, dtype)
                for part, kind in kinds.items()
                if self._instead(part)
            }
            pipeline = StableDiffusionPipeline.from_single_file(
                self.place, config=str(config), torch_dtype=dtype, safety_checker=None, **others
            )
        for part in WEIGHTS:
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
                    else f", or name another's: --model.{part.replace('_', '-')} FOLDER"
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
        with self._reading(Path(self.place)), safe_open(self.place, "pt") as file:
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
            with self._reading(Path(self.place)):
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
            else hub.snapshot("model.config", place, None, CONFIGS)
        )

    @contextmanager
    def _reading(self, what: Path) -> Iterator[None]:
        """Whatever the libraries stumble over."""
        try:
            with quiet():
                yield
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"model.source: cannot read {what}: {error}") from error


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


def _parts() -> str:
    return ", ".join([*WEIGHTS, *OTHERS])


@contextmanager
def quiet() -> Iterator[None]:
    """Progress bars and advice of the libraries are about their own use, not the run's."""
    levels = diffusers_log.get_verbosity(), transformers_log.get_verbosity()
    for each in (diffusers_log, transformers_log):
        each.set_verbosity_error()
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each, level in zip((diffusers_log, transformers_log), levels, strict=True):
            each.set_verbosity(level)
            each.enable_progress_bar()
