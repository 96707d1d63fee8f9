"""Where the models of rewards come from, and how it is told that they cannot be had."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.errors import ConfigError
from rediffuse.hub import snapshots as hub

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = ("model.safetensors", "model-0*.safetensors")


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


def pin(reward: object, place: str, revision: str, model: "PreTrainedModel") -> None:
    """Of a model of the Hub, the commit that was loaded becomes the value of the option
    `revision`.
    """
    folder = Path(model.name_or_path)
    if folder.parent.name == "snapshots" and not Path(getattr(reward, place)).is_dir():
        object.__setattr__(reward, revision, folder.name)


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
