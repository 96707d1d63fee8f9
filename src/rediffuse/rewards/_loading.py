"""Loading the models of rewards from folders or the Hub; failures become ConfigErrors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rediffuse.errors import ConfigError
from rediffuse.hub import snapshots as hub
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

WEIGHTS = ("model.safetensors", "model-0*.safetensors")
"""Patterns of the names of weight files."""


Model = TypeVar("Model")


@dataclass(frozen=True)
class LoadedReward(Generic[Model]):
    """A reward with its loaded model.

    Attributes:
        model: The model, or several of them.
        scores: Computes the rewards; takes the model, samples (B, *S) and B prompts.
        pinned: Options that loading resolved, such as the commit of a branch.
    """

    model: Model
    scores: Callable[[Model, Tensor, Sequence[Prompt]], Tensor | Judgement]
    pinned: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, samples: Tensor, prompts: Sequence[Prompt]) -> Tensor | Judgement:
        return self.scores(self.model, samples, prompts)


class SeesFeatures(Protocol):
    """A model that gives features for the similarity of images."""

    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D), on the CPU, of images (B, 3, H, W) in [0, 1]."""
        ...


Seeing = TypeVar("Seeing", bound=SeesFeatures)


@dataclass(frozen=True)
class LoadedWithFeatures(LoadedReward[Seeing]):
    """A loaded reward whose model gives features for the similarity of images (`HasFeatures`)."""

    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D), on the CPU, of images (B, 3, H, W) in [0, 1]."""
        return self.model.features(images)


def folder_of(key: str, place: str, revision: str | None, others: Sequence[str]) -> Path:
    """Returns the folder with a model's files; downloads them if they are on the Hub.

    Args:
        key: The configuration option that names the model, for error messages.
        place: A folder on this machine, or else a Hub id.
        revision: A commit, tag or branch of the Hub; None: the newest.
        others: Patterns of the files to download besides weights and JSON files.

    Raises:
        ConfigError: If the model cannot be downloaded or has no safetensors weights.
    """
    folder = (
        Path(place)
        if Path(place).is_dir()
        else hub.snapshot(key, place, revision, ["*.json", *WEIGHTS, *others])
    )
    if not any(folder.glob("model*.safetensors")):
        raise ConfigError(
            f"{key}: {place} has no safetensors weights, and a pickle may run any code. Look for"
            " a conversion among the pull requests of its page on the Hub (the revision is"
            " refs/pr/NUMBER), or convert it and give the folder."
        )
    return folder


def make_absolute(reward: object, *options: str) -> None:
    """Makes those options of a reward that name existing paths absolute, so that they do not depend
    on the working directory.
    """
    for option in options:
        value = getattr(reward, option)
        if Path(value).exists():
            object.__setattr__(reward, option, str(Path(value).resolve()))


def commit_of(place: str, option: str, model: PreTrainedModel) -> dict[str, str]:
    """Returns the commit of a model that was loaded from the Hub, as the value of `option`; nothing
    for a model from a folder.
    """
    folder = Path(model.name_or_path)
    pinned = folder.parent.name == "snapshots" and not Path(place).is_dir()
    return {option: folder.name} if pinned else {}


@contextmanager
def reading(key: str, folder: Path) -> Iterator[None]:
    """Turns exceptions inside the context into ConfigErrors under `key`, and hides warnings and
    progress bars of transformers.
    """
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{key}: cannot read {folder}: {error}") from error
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
