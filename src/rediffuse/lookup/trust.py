"""Permissions for what an untrusted configuration requests of this machine.

Without permission, a recipe or a run's config.yaml may name models of the Hub, and files in its run
folder or in the package. Code, other paths, server addresses, environment variables, unencrypted
HTTP and pickles need permission, by being named in the command's own flags or by --trust-code. What
was allowed when a run began is stored outside its folder, so that the same user can resume it
without asking again.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rediffuse.config import inputs
from rediffuse.config.declared import KEYS, PACKAGE, Option, declared_options
from rediffuse.config.rewards import key_of
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError
from rediffuse.lookup.find import GIVEN_IN_PYTHON
from rediffuse.lookup.parts import components_of


def refuse(
    where: object, config: Config, flags: Mapping[str, Any] | None = None, run: Path | None = None
) -> None:
    """Raises ConfigError if the configuration requests something without permission.

    Args:
        where: The file that the configuration was read from, for the message.
        config: The configuration.
        flags: The command's flags as nested options, which need no permission.
        run: The run's folder, if the configuration is that of a run.
    """
    if asked := unallowed(config, flags, run):
        listed = ", ".join(f"{value} ({place})" for place, value in asked.items())
        raise ConfigError(
            f"{where} asks to run code, read files, reach servers, send a key or unpickle:"
            f" {listed}. Check each of them; if you trust the file, add --trust-code."
        )


def unallowed(
    config: Config, flags: Mapping[str, Any] | None = None, run: Path | None = None
) -> dict[str, str]:
    """Returns the requests that lack permission, as in `asks`; the arguments are those of
    `refuse`.
    """
    typed = set(_typed(flags or {}, config))
    allowed = _remembered(run) if run else {}
    return {
        place: value
        for place, value in asks(config, run).items()
        if allowed.get(place) != value
        and not any(place == each or place.startswith(f"{each}.") for each in typed)
    }


def asks(config: Config, run: Path | None = None) -> dict[str, str]:
    """Returns all requests that need permission, by option: `reward.name` -> `mine.py:dark`."""
    return dict(
        each
        for place, key, options in components_of(config)
        for each in _asked(place, key, options, run)
    )


def remember(run: Path, config: Config) -> None:
    """Stores that the user allowed the requests of this run, if the state folder is writable."""
    if asked := asks(config, run):
        place = _memory(run)
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(
                place, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)
            ) as file:
                file.write(json.dumps(asked))
        except OSError:  # the user has to give permission again
            return


def _remembered(run: Path) -> dict[str, str]:
    try:
        known = json.loads(_memory(run).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _memory(run: Path) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return (
        state
        / "rediffuse"
        / "allowed"
        / f"{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:32]}.json"
    )


def _typed(flags: Mapping[str, Any], config: Config) -> Iterator[str]:
    """Yields the options that flags set, named as in `components_of`."""
    for leaf in _leaves(flags):
        first, _, rest = leaf.partition(".")
        number, _, option = rest.partition(".")
        if first != "rewards":
            yield "evaluation.held_out" if leaf.startswith("evaluation.held_out.") else leaf
        elif number.isdecimal():
            yield f"{key_of(config.rewards, int(number))}.{option}"
        else:
            yield from ("reward", "rewards", "evaluation.held_out")


def _leaves(flags: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of nested options: `{"reward": {"url": …}}` -> `reward.url`."""
    for key, value in flags.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _asked(
    place: str, key: str, options: Mapping[str, Any], run: Path | None
) -> Iterator[tuple[str, str]]:
    name = str(options.get("name", ""))
    if name.startswith(GIVEN_IN_PYTHON):
        return
    if ":" in name:
        yield f"{place}.name", name
    declared = declared_options(KEYS[key], name)
    for option, value in options.items():
        if option in declared and _reaches(declared[option], value, run):
            yield f"{place}.{option}", str(value).lower() if isinstance(value, bool) else str(value)
        if option in declared and declared[option].kind == "FilePath" and value:
            named = inputs.named_in(Path(str(value)))
            if outside := [path for path in named if not _inside(path, run)]:
                yield f"{place}.{option}.inputs", inputs.short_list(outside)


def _reaches(option: Option, value: Any, run: Path | None) -> bool:
    """Whether a value of this option names something outside the run, the package and the Hub."""
    if option.kind == "harmless" or not value or value == option.default:
        return False
    if str(value).startswith("~") and option.kind in ("HubId", "FilePath"):
        return True
    if option.kind == "HubId":
        path = Path(str(value))
        local = os.path.exists(path) or path.is_absolute() or str(value).startswith(".")
        return local and not _inside(path, run)
    return option.kind != "FilePath" or not _inside(Path(str(value)), run)


def _inside(path: Path, run: Path | None) -> bool:
    try:
        resolved = (run / path if run else path).resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, or an invalid file name
        return False
    return any(resolved.is_relative_to(root.resolve()) for root in (PACKAGE, run) if root)
