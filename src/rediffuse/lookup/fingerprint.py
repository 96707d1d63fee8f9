"""What the files on this machine that a run is made of contained when it began: base weights,
judges, prompts.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rediffuse.config.declared import KEYS, declared_options
from rediffuse.config.inputs import named_in
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError
from rediffuse.lookup.build import components_of
from rediffuse.runs.files import digest

READ = (".safetensors", ".bin", ".ckpt", ".pt", ".json", ".txt", ".jsonl", ".model")
"""Ends of the names of files that are read of a model's folder."""


def of(config: Config, only: str = "") -> dict[str, dict[str, str]]:
    """By option, the SHA-256 of every file that it names: `model.source` -> `unet/config.json` ->
    digest; of a file of prompts also of the input files that its lines name.

    only: how the options' names begin.
    """
    found = {place: _digests(path) for place, path in _local(config) if place.startswith(only)}
    return {place: digests for place, digests in found.items() if digests}


def refuse_changed(before: Mapping[str, Mapping[str, str]], config: Config) -> None:
    """Raises ConfigError where a file is not what it was. before: as `of` gave it; what it does not
    name is not looked at.
    """
    for each in changes(before, config):
        raise ConfigError(
            f"{each} changed since the run began, so that it would go on with other files than it"
            " learned with. Put them back; or go on all the same: rediffuse resume RUN"
            " --accept-changed-files"
        )


def changes(before: Mapping[str, Mapping[str, str]], config: Config, only: str = "") -> list[str]:
    """The option and the first file of each that is not what it was. only: how the options' names
    begin.
    """
    now, found = of(config, only), []
    for place, files in before.items():
        changed = [name for name, digest in files.items() if now.get(place, {}).get(name) != digest]
        if changed and place.startswith(only):
            found.append(
                f"{place}: {changed[0]}" + (f" and {len(changed) - 1} more" if changed[1:] else "")
            )
    return found


def _local(config: Config) -> Iterator[tuple[str, Path]]:
    """Options of components of the house that name what is on this machine."""
    for place, key, options in components_of(config):
        for option, declared in declared_options(KEYS[key], str(options.get("name", ""))).items():
            path = Path(str(options.get(option) or declared.default or ""))
            if declared.kind in ("HubId", "FilePath") and path.name and path.exists():
                yield f"{place}.{option}", path


def _digests(path: Path) -> dict[str, str]:
    files = (
        [path]
        if path.is_file()
        else sorted(each for each in path.rglob("*") if each.suffix in READ and each.is_file())
    )
    named = {str(file): digest(file) for file in named_in(path) if file.is_file()}
    return named | {
        file.relative_to(path).as_posix() if file != path else file.name: digest(file)
        for file in files
    }
