"""Recipes: the package's, those of users, and how one becomes the configuration of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rediffuse.config.declared import KEYS, located
from rediffuse.config.merge import merge
from rediffuse.config.reading import read_yaml
from rediffuse.config.schema import Config, from_mapping, to_mapping
from rediffuse.errors import ConfigError, did_you_mean, quoted

RECIPES = Path(__file__).parents[1] / "recipes"
ALGORITHMS = Path(__file__).parents[1] / "algorithms"
DEFAULT_RECIPE = "demo/counting"
NOT_OF_THE_RUN = ("claim", "extends", "with_algorithm")
"""Keys of a recipe that are not keys of a run."""


def recipe_names() -> list[str]:
    """Returns the names of the package's recipes, such as demo/counting."""
    return sorted(
        path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml")
    )


def read_recipe(name: str) -> dict[str, Any]:
    """A recipe of the package by its name, or anyone's YAML file by its path; over the one that it
    `extends`, if it does.
    """
    return _read_recipe(name, ())


def _read_recipe(name: str, extended_by: tuple[str, ...]) -> dict[str, Any]:
    """A file that is extended is looked for beside the one that extends it."""
    known = recipe_names()
    if extended_by and name not in known:
        name = str(Path(extended_by[-1]).parent / name)
    if name in extended_by:
        raise ConfigError(f"extends: {' extends '.join([*extended_by, name])}, which is a cycle.")
    if name in known:
        recipe = read_yaml(RECIPES / f"{name}.yaml")
    elif Path(name).suffix in (".yaml", ".yml"):
        recipe = located(read_yaml(Path(name)), Path(name).parent)
    else:
        near = did_you_mean(name, known)
        raise ConfigError(
            f"No recipe {quoted(name)}; there are {', '.join(known)}, or the path of a YAML"
            f" file.{near}"
        )
    if "extends" not in recipe:
        return merge({}, recipe)
    base = _read_recipe(str(recipe["extends"]), (*extended_by, name))
    return merge(_by_its_algorithm(base, recipe), recipe)


def resolved(recipe: Mapping[str, Any], flags: Mapping[str, Any]) -> Config:
    """A recipe, then its settings for the algorithm asked for, then the flags."""
    merged = merge(_by_its_source(_by_its_algorithm(recipe, flags), flags), flags)
    return from_mapping({key: value for key, value in merged.items() if key not in NOT_OF_THE_RUN})


def config_from(
    given: Config | Mapping[str, Any] | str | Path, options: Mapping[str, Any]
) -> Config:
    """A run as Python names it: a Config, a recipe by its name or path, or keys and values; options
    go over it.
    """
    over = _with_names(options)
    if isinstance(given, Config):
        return from_mapping(merge(to_mapping(given), over)) if over else given
    if not isinstance(given, Mapping):
        return resolved(read_recipe(str(given)), over)
    own = _with_names(given)
    if "extends" in own:
        base = read_recipe(str(own["extends"]))
        own = merge(_by_its_algorithm(base, own), own)
    return resolved(own, over)


def _with_names(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`reward: redness` is short for `reward: {name: redness}`."""
    return {
        key: {"name": value} if key in KEYS and isinstance(value, str) else value
        for key, value in raw.items()
    }


def _by_its_algorithm(recipe: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe as it is for the algorithm that `over` asks for."""
    usual, specials = _mapping(recipe, "algorithm").get("name"), _mapping(recipe, "with_algorithm")
    asked = _mapping(over, "algorithm").get("name", usual)
    if asked == usual:
        return recipe
    known = sorted(path.stem for path in ALGORITHMS.glob("[!_]*.py"))
    for name in specials:
        if name not in known and ":" not in name:
            near = did_you_mean(name, known)
            raise ConfigError(
                f"with_algorithm.{name}: no such algorithm; there are {', '.join(known)}.{near}"
            )
    special = _mapping(specials, str(asked))
    return merge({**recipe, "algorithm": {"name": asked}}, special)


def _by_its_source(recipe: Mapping[str, Any], over: Mapping[str, Any]) -> Mapping[str, Any]:
    """A revision is one of the recipe's own source; another one's is not known."""
    model = _mapping(recipe, "model")
    if _mapping(over, "model").get("source", model.get("source")) == model.get("source"):
        return recipe
    return {**recipe, "model": {key: value for key, value in model.items() if key != "revision"}}


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: must hold keys and values, not {quoted(value)}.")
    return value
