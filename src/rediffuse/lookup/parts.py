"""All components of a run, from its configuration, and the configuration that spells them out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.config.declared import KEYS
from rediffuse.config.rewards import component_of, is_trained, key_of, term_names, use_of
from rediffuse.config.schema import Config, Options
from rediffuse.errors import ConfigError, quoted
from rediffuse.lookup.build import build, check_names, refuse_what_is_no_reward
from rediffuse.lookup.find import GIVEN_IN_PYTHON

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
    """Returns the configuration that trains on a reward that only the caller has. If the run was
    given one before, its weight is kept.
    """
    name = GIVEN_IN_PYTHON + getattr(reward, "__name__", type(reward).__name__)
    before = next((each for each in config.rewards if _is_given_in_python(each)), {})
    others = [entry for entry in config.rewards if not is_trained(entry)]
    return replace(config, rewards=[{**before, "name": name}, *others])


def _is_given_in_python(options: Mapping[str, Any]) -> bool:
    return str(options.get("name", "")).startswith(GIVEN_IN_PYTHON)


def _terms(config: Config, reward: "Reward | None", modality: str) -> "list[Term]":
    """Returns the rewards, built; equal ones are one object, so that a model is loaded once."""
    from rediffuse.scoring.terms import Term  # with torch, which a built model has imported

    terms: list[Term] = []
    names = term_names(config.rewards)
    known: list[tuple[Options, Any]] = []
    for number, entry in enumerate(config.rewards):
        place, use = key_of(config.rewards, number), use_of(entry, f"rewards.{number}")
        if reward is not None and _is_given_in_python(entry):
            refuse_what_is_no_reward(getattr(reward, "__name__", type(reward).__name__), reward)
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
        terms.append(Term(names[number], use, built))
    return terms


def modality_of(family: "ModelFamily") -> str:
    """Returns the name of the modality that a family declares."""
    return getattr(family, "modality", "image")


def _refuse_another_modality(
    key: str, name: str, reward: "Reward | RewardFamily", made: str
) -> None:
    """Raises ConfigError where a reward judges another kind of sample than the model makes."""
    judged = getattr(reward, "judges", made)
    if judged != made:
        raise ConfigError(
            f"{key}: {quoted(name)} scores {judged} samples, but the model makes {made} samples."
            " Choose another reward; a function of your own may score any kind."
        )


def components_of(config: Config) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields (the key that it is reported under, its key of KEYS, its options) of each component.
    The first is `model`, `reward` or `rewards.1`, `evaluation.held_out.0` and so on.
    """
    for key in KEYS:
        if key != "reward":
            yield key, key, getattr(config, key)
    if config.evaluation.sampler is not None:
        yield "evaluation.sampler", "sampler", config.evaluation_sampler
    for number, entry in enumerate(config.rewards):
        yield key_of(config.rewards, number), "reward", component_of(entry)


def completed(config: Config, parts: Parts) -> Config:
    """Returns the same configuration with every option spelt out, so that it does not depend on
    defaults, and every path absolute.
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
    """Returns a name that means the same in any working directory."""
    place, _, attribute = name.rpartition(":")
    return f"{Path(place).resolve()}:{attribute}" if place.endswith(".py") else name
