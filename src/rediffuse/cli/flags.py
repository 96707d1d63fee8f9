"""Reading flags, `--a.b value`, as nested options."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rediffuse.config.declared import KEYS
from rediffuse.config.reading import MOST_DEPTH, flag_value
from rediffuse.config.rewards import LONGEST_NUMBER, trained
from rediffuse.errors import ConfigError, quoted
from rediffuse.lookup.build import text_options


def flags(rest: Sequence[str], recipe: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reads flags of the forms `--a.b value` and `--a-c=value`.

    The value of an option that is text or a path is taken literally; any other is read as YAML.

    Args:
        rest: The words of the command line.
        recipe: The recipe that the flags change. It names the components that the flags do not.

    Returns:
        Nested mappings.

    Raises:
        ConfigError: If a word is not a flag, or a flag has no valid value.
    """
    words = list(_words(rest))
    named = {".".join(path[:-1]): value for path, _, value in words if path[-1] == "name"}
    nested: dict[str, Any] = {}
    for path, key, text in words:
        leaf = _value(path, f"--{key}", text, named, recipe or {})
        for part in reversed(path):
            leaf = {part: leaf}
        nested = _deep(nested, leaf)
    return nested


def _words(rest: Sequence[str]) -> Iterator[tuple[list[str], str, str]]:
    """Yields for each flag the path of its option, the flag as it was typed, and its value."""
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise ConfigError(
                f"{quoted(word)}: expected a flag like --epochs 10; a recipe stands before all"
                " flags."
            )
        key, has_value, value = word[2:].partition("=")
        path = key.replace("-", "_").split(".")
        if len(path) > MOST_DEPTH:
            raise ConfigError(f"--{key[:60]}…: nested more than {MOST_DEPTH} deep.")
        if not has_value:
            if not words or words[0].startswith("--"):
                raise ConfigError(
                    f"--{key[:200]}: expected a value after it; one that begins with -- must"
                    " follow a =."
                )
            value = words.pop(0)
        if path[-1] in KEYS and len(path) == 1:
            path.append("name")
        yield path, key[:200], value


def _value(
    path: Sequence[str], where: str, text: str, named: Mapping[str, str], recipe: Mapping[str, Any]
) -> Any:
    key, option = path[0], path[-1]
    if key == "rewards" and len(path) == 3 and path[1].isdecimal():
        key, name = "reward", _name_of_number(path, named, recipe)
    elif key in KEYS and len(path) == 2:
        name = _name_of(key, named, recipe)
    else:
        return flag_value(text, where)
    if option == "name":
        return text
    texts = text_options(key, name, import_it=".".join(path[:-1]) in named)
    if option not in texts or (texts[option] and text == "null"):
        return flag_value(text, where)
    return text


def _name_of(key: str, named: Mapping[str, str], recipe: Mapping[str, Any]) -> str:
    if key in named:
        return named[key]
    known = (
        next(iter(trained(recipe.get("rewards", ()))), {}) if key == "reward" else recipe.get(key)
    )
    return str(known.get("name") if isinstance(known, Mapping) else known)


def _name_of_number(
    path: Sequence[str], named: Mapping[str, str], recipe: Mapping[str, Any]
) -> str:
    if (place := ".".join(path[:2])) in named:
        return named[place]
    number = int(path[1]) if len(path[1]) < LONGEST_NUMBER else -1
    entries = recipe.get("rewards", ())
    return str(entries[number].get("name")) if 0 <= number < len(entries) else ""


def _deep(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merges nested mappings. Unlike in recipes, a component's name keeps the options that were
    given before it.
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if key == "rewards" and key in under and isinstance(below, dict) != isinstance(value, dict):
            raise ConfigError(
                "--rewards: lists all rewards, so that --rewards.NUMBER.option cannot change one"
                " beside it. Put the option into the list."
            )
        merged[key] = (
            _deep(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged
