"""Hashes of the local files that a run depends on (base weights, models of rewards, prompts), to
detect changes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rediffuse.config.declared import KEYS, declared_options
from rediffuse.config.inputs import named_in
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError
from rediffuse.lookup.parts import components_of
from rediffuse.runs.files import digest

READ = (".safetensors", ".bin", ".ckpt", ".pt", ".json", ".txt", ".jsonl", ".model")
"""The suffixes of the files in a model's folder that are hashed."""


def of(config: Config, only: str = "") -> dict[str, dict[str, str]]:
    """Hashes the local files that a configuration names, and the input files that its prompts name.

    Args:
        config: The configuration.
        only: The prefix of the options to consider, such as "model."; empty: all.

    Returns:
        For each option, such as `model.source`, the SHA-256 of each file by its path in the folder,
        such as `unet/config.json`.
    """
    found = {place: _digests(path) for place, path in _local(config) if place.startswith(only)}
    return {place: digests for place, digests in found.items() if digests}


def refuse_changed(before: Mapping[str, Mapping[str, str]], config: Config) -> None:
    """Raises ConfigError if a file has changed.

    Args:
        before: An earlier result of `of`; only its files are compared.
        config: The configuration.
    """
    for each in changes(before, config):
        raise ConfigError(
            f"{each} changed since the run began, so the resumed run would use other files than"
            " it was trained with. Restore them, or accept the change: rediffuse resume RUN"
            " --accept-changed-files"
        )


def changes(before: Mapping[str, Mapping[str, str]], config: Config, only: str = "") -> list[str]:
    """Returns each option whose files have changed, with the first changed file.

    Args:
        before: An earlier result of `of`; only its files are compared.
        config: The configuration.
        only: The prefix of the options to consider; empty: all.
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
    """Yields the options of this package's components that name existing local paths."""
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
