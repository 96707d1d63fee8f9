"""A pipeline as diffusers saves it, in a folder or on the Hugging Face Hub."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.utils import logging as diffusers_log
from transformers.utils import logging as transformers_log

from rediffuse.errors import ConfigError
from rediffuse.hub import snapshots as hub
from rediffuse.hub.weights import refuse_incomplete

SHARDS = (".safetensors", "-0*.safetensors")


@dataclass(frozen=True)
class PipelineFolder:
    """Locates the parts of a pipeline. A subclass says which parts it has. Raises ConfigError for
    any missing file before a large one is read.

    Attributes:
        place: A folder, or an id of the Hub.
        revision: A revision of the Hub.
        allow_pickle: Whether pickled weights may be read, which can run any code.
        variant: The variant of the weights' files, such as fp16.
        weights: The file names of weights, without suffix, by part.
        pickled: The file names of pickled weights, by part.
        others: For each part without weights, a file that it must have.
        configurations: Patterns of all files that are not weights.
    """

    place: str
    revision: str | None = None
    allow_pickle: bool = False
    variant: str | None = None
    weights: ClassVar[Mapping[str, str]]
    pickled: ClassVar[Mapping[str, str]]
    others: ClassVar[Mapping[str, str]]
    configurations: ClassVar[Sequence[str]]

    def refuse_other_kinds(self, folder: Path) -> None:
        """Raises ConfigError if the configurations in `folder` belong to another family."""
        raise NotImplementedError

    def part_in(self, folder: Path, part: str) -> Path:
        """Returns the folder of a part in the folder of a pipeline."""
        return folder / part

    @property
    def commit(self) -> str | None:
        """Of the Hub, where the place is an id of it."""
        return None if Path(self.place).is_dir() else self.folder.name

    @cached_property
    def folder(self) -> Path:
        """Where the parts lie on this machine, whole; from the Hub if need be."""
        path = Path(self.place)
        if not path.is_dir():
            path = self._fetched()
        own = [part for part in self.weights if self._instead(part) is None]
        for part in own:
            self._refuse_without_weights(path, part)
        self._refuse_without_configurations(path, own)
        return path

    def whole(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        """A network of the folder, each of whose tensors is the file's."""
        weights: dict[str, Any] = {"dtype": dtype, "use_safetensors": not self.allow_pickle or None}
        folder = self._folder_of(part)
        if self.variant and any(folder.glob(f"*.{self.variant}[.-]*")):
            weights["variant"] = self.variant
        network, info = kind.from_pretrained(folder, output_loading_info=True, **weights)
        refuse_incomplete("model.source", folder, network, info)
        return network

    def _folder_of(self, part: str) -> Path:
        return self.part_in(self.folder, part)

    def _instead(self, part: str) -> str | None:
        """Another model's folder that an option names for a part."""
        return None

    def _fetched(self) -> Path:
        """The folder in the Hub's cache; what it is, is judged before gigabytes are fetched."""
        if self.place.startswith((".", "/", "~")) or self.place.endswith((".bin", ".pt", ".pth")):
            raise ConfigError(
                f"model.source: no folder {self.place}; save a pipeline there, or give an id of the"
                " Hub."
            )
        found = hub.snapshot("model.source", self.place, self.revision, self.configurations)
        self.refuse_other_kinds(found)
        places = {part: self.part_in(found, part).relative_to(found) for part in self.weights}
        stems = {
            (places[part] / stem).as_posix()
            for part in self.weights
            for stem in (self.weights[part], self._stem(part))
        }
        ends = (f"{stem}{end}" for stem in sorted(stems) for end in SHARDS)
        patterns = [*self.configurations, *ends]
        if self.allow_pickle:
            patterns += [(places[part] / name).as_posix() for part, name in self.pickled.items()]
        return hub.snapshot("model.source", self.place, found.name, patterns)

    def _refuse_without_weights(self, path: Path, part: str) -> None:
        folder, stem, indices = self.part_in(path, part), self._stem(part), [".index.json"]
        if self.variant:
            indices.append(f".index.{self.variant}.json")
        whole = f"{self.weights[part]}.safetensors"
        names = [f"{stem}.safetensors", whole, *(f"{whole}{end}" for end in indices)]
        if any((folder / name).exists() for name in names):
            return
        pickled = (folder / self.pickled[part]).exists()
        if pickled and not self.allow_pickle:
            raise ConfigError(
                f"model.source: {folder} has its weights as a pickle ({self.pickled[part]}), which"
                " may run any code. Look for a revision with .safetensors or, if you trust whoever"
                " made it, add --model.allow-pickle true."
            )
        if not pickled:
            others = sorted(each.name for each in folder.glob("*.safetensors"))
            ends = {
                each.removeprefix(f"{self.weights[part]}.").partition(".")[0] for each in others
            }
            variants = ends - {"safetensors"}
            only = f", only {', '.join(others)}" if others else ""
            cure = f"A pipeline needs {self._parts()}."
            if variants:
                cure = f"Add --model.variant {min(variants)}."
            raise ConfigError(
                f"model.source: {path} has no {part}/{stem}.safetensors{only}. {cure}"
            )

    def _needed(self, path: Path, parts: Sequence[str]) -> list[tuple[str, str]]:
        """Part and name of the configurations that must be there. parts: with weights."""
        return [*self.others.items(), *((part, "config.json") for part in parts)]

    def _refuse_without_configurations(self, path: Path, parts: Sequence[str]) -> None:
        for part, name in self._needed(path, parts):
            if not (self.part_in(path, part) / name).exists():
                raise ConfigError(
                    f"model.source: {path} has no {part}/{name}. A pipeline needs {self._parts()}."
                )

    def _stem(self, part: str) -> str:
        return self.weights[part] + (f".{self.variant}" if self.variant else "")

    def _parts(self) -> str:
        return ", ".join([*self.weights, *self.others])


@contextmanager
def reading_pipeline(what: Path) -> Iterator[None]:
    """Raises ConfigError for whatever the libraries stumble over."""
    try:
        with quiet():
            yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"model.source: cannot read {what}: {error}") from error


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
