"""Where the parts of a pipeline come from: a folder as diffusers saves it, the Hugging Face Hub, or a single file."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_log
from httpx2 import HTTPError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_log

from rediffuse.errors import ConfigError

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
PICKLED = {"unet": "diffusion_pytorch_model.bin", "vae": "diffusion_pytorch_model.bin", "text_encoder": "pytorch_model.bin"}
OTHERS = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}
HUB_SECONDS = 5


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
    """place: a folder, an id of the Hub, or a .safetensors file   config: of a single file, the folder or id it is one of
    prediction: what the network predicts, where its scheduler's configuration is not to be believed

    Raises ConfigError for whatever is missing, before anything large is read.
    """

    place: str
    revision: str | None = None
    config: str | None = None
    allow_pickle: bool = False
    prediction: str | None = None

    def networks(self, dtype: torch.dtype) -> Networks:
        if self._is_file():
            return self._of_single_file(dtype)
        folder = self.folder
        options = {"dtype": dtype, "use_safetensors": not self.allow_pickle or None}
        with quiet():
            return Networks(
                UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options),
                AutoencoderKL.from_pretrained(folder, subfolder="vae", **options),
                CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", **options),
                CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer"),
                self._scheduler(DDIMScheduler.load_config(folder, subfolder="scheduler")),
            )

    def unet(self, dtype: torch.dtype) -> UNet2DConditionModel:
        """The pretrained one, once more."""
        if self._is_file():
            return self._of_single_file(dtype).unet
        with quiet():
            unet: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(self.folder, subfolder="unet", dtype=dtype)
        return unet

    @property
    def commit(self) -> str | None:
        """Of the Hub, where the place is an id of it."""
        return self.folder.name if not self._is_file() and self.folder.parent.name == "snapshots" else None

    @cached_property
    def folder(self) -> Path:
        """Where the parts lie on this machine, whole; from the Hub if need be."""
        path = Path(self.place)
        if not path.is_dir():
            if self.place.startswith((".", "/", "~")) or path.suffix in (".bin", ".pt", ".pth"):
                raise ConfigError(f"model.source: no folder {self.place}; save a pipeline there, or give an id of the Hub.")
            path = self._downloaded()
        for part, stem in WEIGHTS.items():
            found = any((path / part / f"{stem}.safetensors{end}").exists() for end in ("", ".index.json"))
            pickled = (path / part / PICKLED[part]).exists()
            if not found and pickled and not self.allow_pickle:
                raise ConfigError(
                    f"model.source: {path / part} has its weights as a pickle ({PICKLED[part]}), which may run any code. Look"
                    " for a revision with .safetensors or, if you trust whoever made it, add --model.allow-pickle true."
                )
            if not found and not pickled:
                others = ", ".join(sorted(each.name for each in (path / part).glob("*.safetensors")))
                raise ConfigError(
                    f"model.source: {path} has no {part}/{stem}.safetensors{f', only {others}' if others else ''}."
                    f" A pipeline needs {_parts()}."
                )
        for part, name in OTHERS.items():
            if not (path / part / name).exists():
                raise ConfigError(f"model.source: {path} has no {part}/{name}. A pipeline needs {_parts()}.")
        return path

    def _is_file(self) -> bool:
        path = Path(self.place)
        if path.suffix in (".safetensors", ".ckpt") and not path.is_file():
            raise ConfigError(f"model.source: no file {self.place}.")
        if path.is_file() and path.suffix != ".safetensors" and not self.allow_pickle:
            raise ConfigError(
                f"model.source: {self.place} is not a .safetensors file; others may run any code when they are read. Look for the"
                " same model as .safetensors or, if you trust whoever made it, add --model.allow-pickle true."
            )
        return path.is_file()

    def _of_single_file(self, dtype: torch.dtype) -> Networks:
        options = {"config": self.config} if self.config else {}
        try:
            with quiet():
                from diffusers import StableDiffusionPipeline

                pipeline = StableDiffusionPipeline.from_single_file(self.place, torch_dtype=dtype, safety_checker=None, **options)
        except Exception as error:  # diffusers raises whatever its conversion stumbles over
            advice = "" if self.config else " Without the Hub, say which pipeline it is one of: --model.config FOLDER."
            raise ConfigError(f"model.source: cannot read {self.place}: {error}.{advice}") from error
        scheduler = self._scheduler(pipeline.scheduler.config)
        return Networks(pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.tokenizer, scheduler)

    def _scheduler(self, config: dict[str, Any]) -> DDIMScheduler:
        return ddim({**config, "prediction_type": self.prediction} if self.prediction else config)

    def _downloaded(self) -> Path:
        """The Hub is asked once, with a limit on its time, what the revision stands for; if it is silent, the cache answers."""
        patterns = ["model_index.json", "*/*.json", "*/merges.txt"]
        patterns += [f"{part}/{stem}{end}" for part, stem in WEIGHTS.items() for end in (".safetensors", "-0*.safetensors")]
        if self.allow_pickle:
            patterns += [f"{part}/{name}" for part, name in PICKLED.items()]
        try:
            commit = self._commit_on_the_hub()
        except (HTTPError, ConnectionError) as error:
            try:
                cached = snapshot_download(self.place, revision=self.revision, allow_patterns=patterns, local_files_only=True)
            except LocalEntryNotFoundError:
                raise ConfigError(
                    f"model.source: cannot reach the Hub for {self.place}, and it is not in the cache. Connect and try again, or"
                    " give a folder or a .safetensors file that is on this machine."
                ) from error
            return Path(cached)
        return Path(snapshot_download(self.place, revision=commit, allow_patterns=patterns))

    def _commit_on_the_hub(self) -> str | None:
        try:
            return HfApi().model_info(self.place, revision=self.revision, timeout=HUB_SECONDS).sha
        except GatedRepoError as error:
            raise ConfigError(
                f"model.source: {self.place} asks for consent first: accept its licence at https://huggingface.co/{self.place},"
                " make a token at https://huggingface.co/settings/tokens, and run: hf auth login"
            ) from error
        except RevisionNotFoundError as error:
            raise ConfigError(
                f"model.revision: {self.place} has none called {self.revision!r}; give a commit hash, tag or branch."
            ) from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise ConfigError(
                f"model.source: no folder and no model on the Hub is called {self.place!r}. Look for a slip of the pen; if it is"
                " private, run: hf auth login"
            ) from error


def ddim(config: dict[str, Any]) -> DDIMScheduler:
    """A scheduler whose configuration says nothing of it does not clip latents, which have no range."""
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
