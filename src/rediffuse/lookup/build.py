"""From a name in a configuration to the thing it names.

A room is a folder of the package; a file's name is the name of what it holds. `ddpo_is` is
`rediffuse/algorithms/ddpo_is.py`; `my_file.py:Mine` and `my_pkg.my_file:Mine` are anyone's own.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import ValidationError

from rediffuse.config.declared import KEYS, declared_options, names, purpose
from rediffuse.config.reading import other_kind
from rediffuse.config.schema import Config, problems, validator
from rediffuse.errors import ConfigError, did_you_mean, quoted
from rediffuse.scoring import cures

if TYPE_CHECKING:
    from rediffuse.types import Algorithm, ModelFamily, PromptSet, Reward, SamplerFamily

MEMBERS = {
    "model": ["load"],
    "sampler": ["bind"],
    "algorithm": ["loss", "advantages", "check", "trains_on", "passes", "metric_names", "groups"],
    "reward": ["__call__"],
    "prompts": ["draw"],
}
"""What every component of that key has (rediffuse.types)."""

__all__ = [
    "KEYS",
    "Parts",
    "assemble",
    "build",
    "check_names",
    "completed",
    "components_of",
    "declared_options",
    "find",
    "modality_of",
    "names",
    "purpose",
    "text_options",
]

GIVEN_IN_PYTHON = "python:"
"""How a configuration names a reward that only the caller of `rediffuse.train` has."""


@dataclass(frozen=True)
class Parts:
    """What a configuration names, built and checked; nothing heavy is loaded yet."""

    family: "ModelFamily"
    sampler: "SamplerFamily"
    prompts: "PromptSet"
    reward: "Reward"
    algorithm: "Algorithm"
    held_out: "Sequence[Reward]" = ()


def assemble(config: Config, reward: "Reward | None" = None) -> Parts:
    """Raises ConfigError for anything that cannot be; names are looked at first, which needs no
    torch.
    """
    for key in KEYS:
        if not (key == "reward" and reward):
            check_names(key, getattr(config, key))
    for options in config.evaluation.held_out:
        check_names("reward", options)
    algorithm = build("algorithm", config.algorithm)
    algorithm.check(config)
    parts = Parts(
        build("model", config.model),
        build("sampler", config.sampler),
        build("prompts", config.prompts),
        _given(reward) if reward else build("reward", config.reward),
        algorithm,
        [_held_out_reward(options) for options in config.evaluation.held_out],
    )
    _refuse_another_modality("reward.name", parts.reward, parts.family)
    for each in parts.held_out:
        _refuse_another_modality("evaluation.held_out", each, parts.family)
    return parts


def modality_of(family: "ModelFamily") -> str:
    """The name of the modality that a family says it makes."""
    return getattr(family, "modality", "image")


def _refuse_another_modality(key: str, reward: "Reward", family: "ModelFamily") -> None:
    """Raises ConfigError where a reward, or one that it is made of, judges another kind of sample
    than the model makes.
    """
    from rediffuse.scoring.judging import name_of  # with torch, which a built reward has imported

    made = modality_of(family)
    for each in (reward, *(term.reward for term in getattr(reward, "rewards", ()))):
        judged = getattr(each, "judges", made)
        if judged != made:
            raise ConfigError(
                f"{key}: {name_of(each)!r} judges {judged} samples, but the model makes {made}"
                " samples. Choose another reward; a function of your own may judge any."
            )


def _given(reward: "Reward") -> "Reward":
    _refuse_another_signature(getattr(reward, "__name__", type(reward).__name__), reward)
    return reward


def _held_out_reward(options: Mapping[str, Any]) -> "Reward":
    reward: Reward = build("reward", options)
    from rediffuse.types import Combines  # with torch, which a built reward has imported

    if isinstance(reward, Combines):
        raise ConfigError(
            f"evaluation.held_out: {options['name']} is made of a whole epoch; name its terms"
            " instead."
        )
    return reward


def completed(config: Config, parts: Parts, *, given_in_python: bool = False) -> Config:
    """The same run with every option spelt out, whatever its default may be one day, and every path
    absolute.
    """
    built = {
        "model": parts.family,
        "sampler": parts.sampler,
        "algorithm": parts.algorithm,
        "prompts": parts.prompts,
    }
    if not given_in_python:
        built["reward"] = parts.reward
    spelt: dict[str, Any] = {
        key: {"name": _anywhere(getattr(config, key)["name"]), **_options(part)}
        for key, part in built.items()
    }
    if given_in_python:
        reward = parts.reward
        spelt["reward"] = {
            "name": GIVEN_IN_PYTHON + getattr(reward, "__name__", type(reward).__name__)
        }
    held_out = [
        {"name": _anywhere(options["name"]), **_options(part)}
        for options, part in zip(config.evaluation.held_out, parts.held_out, strict=True)
    ]
    return replace(config, **spelt, evaluation=replace(config.evaluation, held_out=held_out))


def _options(part: Any) -> dict[str, Any]:
    given = (
        {f.name: getattr(part, f.name) for f in fields(part) if f.init}
        if is_dataclass(part)
        else {}
    )
    if "rewards" in given:
        given["rewards"] = [
            {**_options(term.reward), "name": _anywhere(term.name), "weight": term.weight}
            for term in given["rewards"]
        ]
    return {
        name: str(value.resolve()) if isinstance(value, Path) else value
        for name, value in given.items()
    }


def _anywhere(name: str) -> str:
    """A name that means the same in any working directory."""
    place, _, attribute = name.rpartition(":")
    return f"{Path(place).resolve()}:{attribute}" if place.endswith(".py") else name


def find(key: str, name: str) -> Any:
    """The class or function that `name` means under the configuration's `key`."""
    check_name(key, name)
    if ":" in name:
        return _their_own(key, *name.rsplit(":", 1))
    module = importlib.import_module(f"rediffuse.{KEYS[key]}.{name}")
    return getattr(module, module.__all__[0])


def check_name(key: str, name: object) -> str:
    """The name. Raises ConfigError if no file of the room bears it; those in other people's files
    are seen on import.
    """
    room, text = KEYS[key], str(name or "")
    if text.startswith(GIVEN_IN_PYTHON):
        raise ConfigError(
            f"{key}.name: this run was given {quoted(text)} in Python; go on with"
            f" rediffuse.resume(run, {key}=…)."
        )
    if not isinstance(name, str) or (":" not in name and name not in names(room)):
        known = names(room)
        raise ConfigError(
            f"{key}.name: no {quoted(text)} among {room}:"
            f" {', '.join(known)}.{did_you_mean(text, known)}"
        )
    return name


def check_names(key: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for a component or an option that the house does not have."""
    name = check_name(key, options.get("name"))
    if ":" not in name:
        _check_options(key, options, list(declared_options(KEYS[key], name)))
        _refuse_devices(key, options)
    for each in nested(options):
        check_names("reward", _without_weight(each))


def text_options(key: str, name: str, *, import_it: bool) -> dict[str, bool]:
    """The options of a component whose values are text or paths, and whether each may be None.

    import_it: whether a file of anyone's may be imported to learn that
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


def _check_options(key: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    for option in options:
        if option not in ("name", *known):
            listed, near = ", ".join(known) or "none", did_you_mean(str(option), known)
            raise ConfigError(
                f"{key}.{str(option)[:100]}: {quoted(options['name'])} has no such option; it has"
                f" {listed}.{near}"
            )


def nested(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The components that a reward is made of. Raises ConfigError for anything else in their
    place.
    """
    nested = options.get("rewards", [])
    if not isinstance(nested, list) or not all(isinstance(each, Mapping) for each in nested):
        raise ConfigError(
            f"reward.rewards: must be a list like [{{name: aesthetic, weight: 2}}, …], not"
            f" {quoted(nested)}."
        )
    return nested


def components_of(config: Config) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(where it stands, its key of KEYS, its options) of each component of a run:
    `evaluation.held_out.0` and `reward.rewards.1` too.
    """
    for key in KEYS:
        yield from _with_nested(key, key, getattr(config, key))
    for number, options in enumerate(config.evaluation.held_out):
        yield from _with_nested(f"evaluation.held_out.{number}", "reward", options)


def _with_nested(
    place: str, key: str, options: Mapping[str, Any]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    yield place, key, options
    for number, each in enumerate(nested(options)):
        yield from _with_nested(f"{place}.rewards.{number}", "reward", each)


def _without_weight(options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if option != "weight"}


def build(key: str, options: Mapping[str, Any]) -> Any:
    """options: `name`, and the fields of what it names, checked by their types; those under
    `rewards` are built first.
    """
    given = dict(options)
    if "rewards" in given:
        given["rewards"] = [
            {
                **{k: each[k] for k in ("name", "weight") if k in each},
                "reward": build("reward", _without_weight(each)),
            }
            for each in nested(options)
        ]
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
    missing = [each for each in MEMBERS[key] if getattr(built, each, None) is None]
    if missing:
        cure = (
            " A reward is called with (images, prompts): name that method __call__, or name a"
            " function."
        ) * (key == "reward")
        raise ConfigError(
            f"{key}.name: {quoted(options['name'])} is not what {KEYS[key]} are: it has no"
            f" {', '.join(map(repr, missing))}.{cure}"
        )
    if key == "reward":
        _refuse_another_signature(str(options["name"]), built)
    return built


def _refuse_another_signature(name: str, reward: Any) -> None:
    if cure := cures.of_signature(reward):
        raise ConfigError(f"reward.name: {quoted(name)} cannot be called: {cure}")


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
    # with torch, which a component imports anyway
    from rediffuse.processes.threads import (
        undisturbed,
    )

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
