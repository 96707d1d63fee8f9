"""From a name in a configuration to the class or function that it names.

A room is a folder of the package; a file's name is the name of what it holds. `ddpo_is` is
`rediffuse/algorithms/ddpo_is.py`; `my_file.py:Mine` and `my_pkg.my_file:Mine` are anyone's own.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from rediffuse.config.declared import KEYS, names
from rediffuse.config.reading import other_kind
from rediffuse.errors import ConfigError, did_you_mean, quoted

REPLACED = {
    "weighted_sum": "List its rewards and their weights as the run's own: rewards: [{name: vqa},"
    " {name: text_penalty, weight: 0.5}].",
    "second_judge": "List the second reward as one of the run's rewards, with weight 0 and a"
    " share of the samples: rewards: [{name: alignment}, {name: clip_score,"
    " weight: 0, share: 0.25}].",
}
"""What configurations of earlier versions name, and how it is said now."""
GIVEN_IN_PYTHON = "python:"
"""How a configuration names a reward that only the caller of `rediffuse.train` has."""


def find(key: str, name: str) -> Any:
    """Returns the class or function that `name` means under the configuration's `key`."""
    check_name(key, name)
    if ":" in name:
        return _their_own(key, *name.rsplit(":", 1))
    module = importlib.import_module(f"rediffuse.{KEYS[key]}.{name}")
    return getattr(module, module.__all__[0])


def check_name(key: str, name: object) -> str:
    """Returns the name. Raises ConfigError if no file of the room has it; names in users' own
    files are checked on import.
    """
    room, text = KEYS[key], str(name or "")
    if text.startswith(GIVEN_IN_PYTHON):
        raise ConfigError(
            f"{key}.name: this run was given {quoted(text)} in Python; resume it with"
            f" rediffuse.resume(run, {key}=…)."
        )
    if text in REPLACED:
        raise ConfigError(f"{key}.name: there is no {text} any more. {REPLACED[text]}")
    if not isinstance(name, str) or (":" not in name and name not in names(room)):
        known = names(room)
        raise ConfigError(
            f"{key}.name: no {quoted(text)} among {room}:"
            f" {', '.join(known)}.{did_you_mean(text, known)}"
        )
    return name


def _their_own(key: str, place: str, attribute: str) -> Any:
    try:
        module = (
            _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except Exception as error:  # it is anyone's code, and may fail in any way
        raise ConfigError(
            f"{key}.name: cannot import {quoted(place)}: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        known = [name for name in vars(module) if not name.startswith("_")]
        raise ConfigError(
            f"{key}.name: {quoted(place)} has no"
            f" {quoted(attribute)}.{did_you_mean(attribute, known)}"
        )
    return getattr(module, attribute)


def _from_file(path: Path) -> ModuleType:
    """Its neighbours can be imported too, then and later; they come last, so that none takes the
    place of an installed module.
    """
    if not path.is_file():
        kind = other_kind(path)
        raise FileNotFoundError(
            f"it is {kind}, not a plain file" if kind else f"no such file: {path}"
        )
    from rediffuse.processes.threads import undisturbed  # imports torch, as components do

    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    name = f"rediffuse_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with undisturbed():
        spec.loader.exec_module(module)
    return module
