"""Where the models of rewards come from, and how it is told that they cannot be had."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.hub import snapshots as hub
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = ("model.safetensors", "model-0*.safetensors")


Model = TypeVar("Model")


@dataclass(frozen=True)
class LoadedReward(Generic[Model]):
    """A reward's model and the way in which its options score with it.

    Attributes:
        scores: Takes the model, samples (B, *S) and B prompts.
        pinned: Options that loading made exact.
    """

    model: Model
    scores: Callable[[Model, Tensor, Sequence[Prompt]], Tensor | Judgement]
    pinned: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, samples: Tensor, prompts: Sequence[Prompt]) -> Tensor | Judgement:
        return self.scores(self.model, samples, prompts)


class SeesFeatures(Protocol):
    """A model whose features say how alike images are."""

    def features(self, images: Tensor) -> Tensor: ...


Seeing = TypeVar("Seeing", bound=SeesFeatures)


@dataclass(frozen=True)
class LoadedWithFeatures(LoadedReward[Seeing]):
    """A loaded reward whose model can say how alike images are; `HasFeatures`."""

    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D), on the host, of images (B, 3, H, W) in [0, 1]."""
        return self.model.features(images)


def folder_of(key: str, place: str, revision: str | None, others: Sequence[str]) -> Path:
    """A folder on this machine, as it is; or that of the Hub's repository, with its weights and
    those other files.
    """
    folder = (
        Path(place)
        if Path(place).is_dir()
        else hub.snapshot(key, place, revision, ["*.json", *WEIGHTS, *others])
    )
    if not any(folder.glob("model*.safetensors")):
        raise ConfigError(
            f"{key}: {place} has no safetensors weights, and a pickle may run any code. Its page on"
            " the Hub may hold a conversion as a pull request, whose revision is refs/pr/NUMBER;"
            " or convert it, and give the folder."
        )
    return folder


def make_absolute(reward: object, *options: str) -> None:
    """What is on this machine means the same in any working directory."""
    for option in options:
        value = getattr(reward, option)
        if Path(value).exists():
            object.__setattr__(reward, option, str(Path(value).resolve()))


def commit_of(place: str, option: str, model: "PreTrainedModel") -> dict[str, str]:
    """Returns the commit that was loaded of a model of the Hub, under the name of the option that
    asks for it; nothing for a model on this machine.
    """
    folder = Path(model.name_or_path)
    pinned = folder.parent.name == "snapshots" and not Path(place).is_dir()
    return {option: folder.name} if pinned else {}


@contextmanager
def reading(key: str, folder: Path) -> Iterator[None]:
    """Whatever transformers stumbles over becomes a ConfigError under `key`; what it merely remarks
    is not shown.
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
