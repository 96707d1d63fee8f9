"""What the files on this machine that a run is made of contained when it began: base weights, judges, prompts."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rediffuse.config import Config
from rediffuse.declared import KEYS, declared_options
from rediffuse.errors import ConfigError
from rediffuse.lookup import nested

READ = (".safetensors", ".bin", ".ckpt", ".pt", ".json", ".txt", ".jsonl", ".model")
"""Ends of the names of files that are read of a model's folder."""


def of(config: Config, only: str = "") -> dict[str, dict[str, str]]:
    """By option, the SHA-256 of every file that it names: `model.source` -> `unet/config.json` -> digest.

    only: how the options' names begin.
    """
    found = {place: _digests(path) for place, path in _local(vars(config)) if place.startswith(only)}
    return {place: digests for place, digests in found.items() if digests}


def refuse_changed(before: Mapping[str, Mapping[str, str]], config: Config) -> None:
    """Raises ConfigError where a file is not what it was. before: as `of` gave it; what it does not name is not looked at."""
    for each in changes(before, config):
        raise ConfigError(
            f"{each} changed since the run began, so that it would go on from another model than it learned with. Put the files"
            " back; or go on all the same: rediffuse resume RUN --accept-changed-files"
        )


def changes(before: Mapping[str, Mapping[str, str]], config: Config, only: str = "") -> list[str]:
    """The option and the first file of each that is not what it was. only: how the options' names begin."""
    now, found = of(config, only), []
    for place, files in before.items():
        changed = [name for name, digest in files.items() if now.get(place, {}).get(name) != digest]
        if changed and place.startswith(only):
            found.append(f"{place}: {changed[0]}" + (f" and {len(changed) - 1} more" if changed[1:] else ""))
    return found


def _local(components: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for key, room in KEYS.items():
        yield from _named(key, room, components[key])
    for number, options in enumerate(components["evaluation"].held_out):
        yield from _named(f"evaluation.held_out.{number}", KEYS["reward"], options)


def _named(place: str, room: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Options of a component of the house, and of those that it is made of, that name what is on this machine."""
    name = str(options.get("name", ""))
    for option, declared in declared_options(room, name).items() if ":" not in name and name else ():
        path = Path(str(options.get(option) or declared.default or ""))
        if declared.kind in ("HubId", "FilePath") and path.name and path.exists():
            yield f"{place}.{option}", path
    for number, each in enumerate(nested(options)):
        yield from _named(f"{place}.rewards.{number}", room, each)


def _digests(path: Path) -> dict[str, str]:
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.suffix in READ and each.is_file())
    return {file.relative_to(path).as_posix() if file != path else file.name: _digest(file) for file in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
