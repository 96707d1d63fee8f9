"""One component of a run, built from its options, after both are checked."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError

from rediffuse.config.declared import KEYS, declared_options
from rediffuse.config.problems import problems
from rediffuse.config.reading import other_kind
from rediffuse.config.rewards import OF_THE_USE
from rediffuse.config.schema import validator
from rediffuse.errors import ConfigError, did_you_mean, quoted
from rediffuse.lookup.find import check_name, find
from rediffuse.scoring import cures

MEMBERS = {
    "model": ["load"],
    "sampler": ["bind"],
    "algorithm": ["loss", "advantages", "check", "trains_on", "passes", "metric_names", "groups"],
    "reward": [],
    "prompts": ["draw"],
}
"""What every component of that key has (rediffuse.types)."""


def build(key: str, options: Mapping[str, Any]) -> Any:
    """Builds a component.

    Args:
        key: Its key of KEYS.
        options: `name`, and values for the fields of what it names, which are checked by type.

    Raises:
        ConfigError: If there is no such component or option, or a value does not fit.
    """
    given = dict(options)
    kind = find(key, given.pop("name", ""))
    with_options = kind if isinstance(kind, type) and is_dataclass(kind) else None
    _check_options(
        key, options, [f.name for f in fields(with_options) if f.init] if with_options else []
    )
    if not callable(kind):
        raise ConfigError(
            f"{key}.name: {quoted(options['name'])} is {type(kind).__name__}, not a class or a"
            " function."
        )
    try:
        made = kind() if isinstance(kind, type) and not with_options else kind
        built = validator(with_options).validate_python(given) if with_options else made
    except ValidationError as error:
        raise ConfigError(problems(error, key)) from error
    except ConfigError:
        raise
    except Exception as error:  # it may be anyone's code
        raise ConfigError(
            f"{key}.name: cannot make {quoted(options['name'])}: {type(error).__name__}: {error}"
        ) from error
    _refuse_other_things(key, str(options["name"]), built)
    if key == "reward":
        refuse_what_is_no_reward(str(options["name"]), built)
    return built


def _refuse_other_things(key: str, name: str, built: Any) -> None:
    """Raises ConfigError for an object without the members of its kind of component."""
    missing = [each for each in MEMBERS[key] if getattr(built, each, None) is None]
    if missing:
        raise ConfigError(
            f"{key}.name: {quoted(name)} lacks what {KEYS[key]} must have:"
            f" {', '.join(map(repr, missing))}."
        )


def refuse_what_is_no_reward(name: str, built: Any) -> None:
    """Raises ConfigError for what neither scores nor loads what scores."""
    clash = [f.name for f in fields(built) if f.name in OF_THE_USE] if is_dataclass(built) else []
    if clash:
        raise ConfigError(
            f"reward.name: {quoted(name)} has an option {clash[0]!r}, which in a list of rewards"
            f" says how a reward is used ({', '.join(OF_THE_USE)}). Rename the option."
        )
    loads = callable(getattr(built, "load", None))
    if loads and callable(built):
        raise ConfigError(
            f"reward.name: {quoted(name)} has both __call__ and load, so it is unclear which one"
            " scores. If load(device) loads its model, let it return the function that scores,"
            " and remove __call__; otherwise rename load."
        )
    if loads:
        refuse_another_load(name, built)
        return
    if not callable(built):
        raise ConfigError(
            f"reward.name: {quoted(name)} is not a reward: it has no '__call__'. A reward is"
            " called with (samples, prompts): name that method __call__; or give it"
            " load(device), which returns the function that is called; or name a function."
        )
    if callable(getattr(built, "prepare", None)):
        raise ConfigError(
            f"reward.name: {quoted(name)} has prepare(device), which nothing calls. Rename it"
            " load, and return the function that scores: def load(self, device): …; return"
            " lambda samples, prompts: …"
        )
    refuse_another_signature(name, built)


def refuse_another_load(name: str, reward: Any) -> None:
    """Raises ConfigError if `load` cannot be called with a device."""
    try:
        inspect.signature(reward.load).bind("cpu")
    except TypeError as error:
        raise ConfigError(
            f"reward.name: {quoted(name)}: its method load cannot be called with a device"
            f" ({error}). Write it as load(self, device)."
        ) from error


def refuse_another_signature(name: str, reward: Any) -> None:
    if cure := cures.of_signature(reward):
        raise ConfigError(f"reward.name: {quoted(name)} cannot be called: {cure}")


def check_names(key: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for a component or an option that the package does not have."""
    name = check_name(key, options.get("name"))
    if ":" not in name:
        _check_options(key, options, list(declared_options(KEYS[key], name)))
        _refuse_devices(key, options)


def _check_options(key: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    for option in options:
        if option not in ("name", *known):
            listed, near = ", ".join(known) or "none", did_you_mean(str(option), known)
            raise ConfigError(
                f"{key}.{str(option)[:100]}: {quoted(options['name'])} has no such option; it has"
                f" {listed}.{near}"
            )


def _refuse_devices(key: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError where an option names a pipe, a socket or a device: reading it may never
    end.
    """
    for option, declared in declared_options(KEYS[key], str(options["name"])).items():
        value = options.get(option)
        if declared.kind in ("FilePath", "HubId") and isinstance(value, str | Path):
            if "\0" in str(value):
                raise ConfigError(f"{key}.{option}: {quoted(value)} holds a zero byte.")
            if kind := other_kind(Path(value), folders=True):
                raise ConfigError(f"{key}.{option}: {quoted(value)} is {kind}, not a plain file.")


def text_options(key: str, name: str, *, import_it: bool) -> dict[str, bool]:
    """Returns the options of a component whose values are text or paths, and whether each may be
    None.

    Args:
        import_it: Whether a user's own file may be imported to learn that.
    """
    if ":" not in name:
        return {
            option: each.may_be_none
            for option, each in declared_options(KEYS[key], name).items()
            if each.is_text
        }
    if not import_it or not is_dataclass(kind := find(key, name)):
        return {}
    kinds = {option: (get_args(each) or (each,)) for option, each in get_type_hints(kind).items()}
    plain = {
        option: set(each) for option, each in kinds.items() if set(each) <= {str, Path, type(None)}
    }
    return {option: type(None) in each for option, each in plain.items()}
