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
from rediffuse.config.rewards import (
    OF_THE_USE,
    component_of,
    is_trained,
    place_of,
    term_names,
    use_of,
)
from rediffuse.config.schema import Config, Options, problems, validator
from rediffuse.errors import ConfigError, did_you_mean, quoted
from rediffuse.scoring import cures

if TYPE_CHECKING:
    from rediffuse.scoring.terms import Term
    from rediffuse.types import (
        Algorithm,
        ModelFamily,
        PromptSet,
        Reward,
        RewardFamily,
        SamplerFamily,
    )

MEMBERS = {
    "model": ["load"],
    "sampler": ["bind"],
    "algorithm": ["loss", "advantages", "check", "trains_on", "passes", "metric_names", "groups"],
    "reward": [],
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

REPLACED = {
    "weighted_sum": "List its rewards and their weights as the run's own: rewards: [{name: vqa},"
    " {name: text_penalty, weight: 0.5}].",
    "second_judge": "List the second judge as one of the run's rewards, with weight 0 and a share"
    " of the samples: rewards: [{name: alignment}, {name: clip_score, weight: 0, share: 0.25}].",
}
"""What configurations of earlier versions name, and how it is said now."""
GIVEN_IN_PYTHON = "python:"
"""How a configuration names a reward that only the caller of `rediffuse.train` has."""


@dataclass(frozen=True)
class Parts:
    """What a configuration names, built and checked; nothing heavy is loaded yet."""

    family: "ModelFamily"
    sampler: "SamplerFamily"
    prompts: "PromptSet"
    algorithm: "Algorithm"
    rewards: "Sequence[Term]"
    evaluation_sampler: "SamplerFamily"


def assemble(config: Config, reward: "Reward | None" = None) -> Parts:
    """Builds all components of a run. Names are checked first, which needs no torch.

    Args:
        reward: The one that the configuration says was given in Python.

    Raises:
        ConfigError: For anything that cannot be.
    """
    for _, key, options in components_of(config):
        if not _is_given_in_python(options) or reward is None:
            check_names(key, options)
    algorithm = build("algorithm", config.algorithm)
    algorithm.check(config)
    family = build("model", config.model)
    return Parts(
        family,
        build("sampler", config.sampler),
        build("prompts", config.prompts),
        algorithm,
        _terms(config, reward, modality_of(family)),
        build("sampler", config.evaluation_sampler),
    )


def given_in_python(config: Config, reward: "Reward") -> Config:
    """The configuration with a reward that only the caller has as the one that is trained on."""
    name = GIVEN_IN_PYTHON + getattr(reward, "__name__", type(reward).__name__)
    others = [entry for entry in config.rewards if not is_trained(entry)]
    return replace(config, rewards=[{"name": name}, *others])


def _is_given_in_python(options: Mapping[str, Any]) -> bool:
    return str(options.get("name", "")).startswith(GIVEN_IN_PYTHON)


def _terms(config: Config, reward: "Reward | None", modality: str) -> "list[Term]":
    """The rewards of a run, built; equal ones are one object, so that a model is loaded once."""
    from rediffuse.scoring.terms import Term  # with torch, which a built model has imported

    terms: list[Term] = []
    known: list[tuple[Options, Any]] = []
    for number, entry in enumerate(config.rewards):
        place, use = place_of(config.rewards, number), use_of(entry, f"rewards.{number}")
        if reward is not None and _is_given_in_python(entry):
            _refuse_another_signature(getattr(reward, "__name__", type(reward).__name__), reward)
            built = reward
        else:
            options = component_of(entry)
            same = [made for each, made in known if each == options]
            built = same[0] if same else build("reward", options)
            known.append((options, built))
        _refuse_another_modality(f"{place}.name", str(entry["name"]), built, modality)
        if use.copy and modality != "image":
            raise ConfigError(
                f"rewards.{number}.copy: copies are made of images, but the model makes {modality}"
                " samples. Leave it out."
            )
        terms.append(Term(term_names(config.rewards)[number], use, built))
    return terms


def modality_of(family: "ModelFamily") -> str:
    """The name of the modality that a family says it makes."""
    return getattr(family, "modality", "image")


def _refuse_another_modality(
    key: str, name: str, reward: "Reward | RewardFamily", made: str
) -> None:
    """Raises ConfigError where a reward judges another kind of sample than the model makes."""
    judged = getattr(reward, "judges", made)
    if judged != made:
        raise ConfigError(
            f"{key}: {quoted(name)} judges {judged} samples, but the model makes {made}"
            " samples. Choose another reward; a function of your own may judge any."
        )


def completed(config: Config, parts: Parts) -> Config:
    """The same run with every option spelt out, whatever its default may be one day, and every path
    absolute.
    """
    built = {
        "model": parts.family,
        "sampler": parts.sampler,
        "algorithm": parts.algorithm,
        "prompts": parts.prompts,
    }
    spelt: dict[str, Any] = {
        key: {"name": _anywhere(getattr(config, key)["name"]), **_options(part)}
        for key, part in built.items()
    }
    rewards = [
        {
            "name": _anywhere(entry["name"]),
            **({} if _is_given_in_python(entry) else _options(term.reward)),
            **term.use.spelt(),
        }
        for entry, term in zip(config.rewards, parts.rewards, strict=True)
    ]
    if config.evaluation.sampler is not None:
        name = _anywhere(config.evaluation_sampler["name"])
        sampler = {"name": name, **_options(parts.evaluation_sampler)}
        spelt["evaluation"] = replace(config.evaluation, sampler=sampler)
    return replace(config, **spelt, rewards=rewards)


def _options(part: Any) -> Options:
    given = (
        {f.name: getattr(part, f.name) for f in fields(part) if f.init}
        if is_dataclass(part)
        else {}
    )
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
    if text in REPLACED:
        raise ConfigError(f"{key}.name: there is no {text} any more. {REPLACED[text]}")
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


def components_of(config: Config) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(the key that it is reported under, its key of KEYS, its options) of each component of a run:
    `model`, `reward` or `rewards.1`, `evaluation.held_out.0`.
    """
    for key in KEYS:
        if key != "reward":
            yield key, key, getattr(config, key)
    if config.evaluation.sampler is not None:
        yield "evaluation.sampler", "sampler", config.evaluation_sampler
    for number, entry in enumerate(config.rewards):
        yield place_of(config.rewards, number), "reward", component_of(entry)


def build(key: str, options: Mapping[str, Any]) -> Any:
    """options: `name`, and the fields of what it names, checked by their types."""
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
    missing = [each for each in MEMBERS[key] if getattr(built, each, None) is None]
    if missing:
        raise ConfigError(
            f"{key}.name: {quoted(options['name'])} is not what {KEYS[key]} are: it has no"
            f" {', '.join(map(repr, missing))}."
        )
    if key == "reward":
        _refuse_what_is_no_reward(str(options["name"]), built)
    return built


def _refuse_what_is_no_reward(name: str, built: Any) -> None:
    """Raises ConfigError for what neither scores nor loads what scores."""
    clash = [f.name for f in fields(built) if f.name in OF_THE_USE] if is_dataclass(built) else []
    if clash:
        raise ConfigError(
            f"reward.name: {quoted(name)} has an option {clash[0]!r}, which in a list of rewards"
            f" says how a reward is used ({', '.join(OF_THE_USE)}). Rename the option."
        )
    if callable(getattr(built, "load", None)):
        return
    if not callable(built):
        raise ConfigError(
            f"reward.name: {quoted(name)} is not what rewards are: it has no '__call__'. A reward"
            " is called with (samples, prompts): name that method __call__; or give it"
            " load(device), which returns what is called; or name a function."
        )
    if callable(getattr(built, "prepare", None)):
        raise ConfigError(
            f"reward.name: {quoted(name)} has prepare(device), which nothing calls. Name it load,"
            " and return what scores: def load(self, device): …; return lambda samples, prompts: …"
        )
    _refuse_another_signature(name, built)


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
