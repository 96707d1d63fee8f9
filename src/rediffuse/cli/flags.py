"""Flags, `--a.b value`, as nested options."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rediffuse.config.reading import MOST_DEPTH, flag_value
from rediffuse.errors import ConfigError, quoted
from rediffuse.lookup.build import KEYS, text_options


def flags(rest: Sequence[str], recipe: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`--a.b value` and `--a-c=value` as nested mappings.

    A value is the text as it stands where its option is text or a path, and YAML elsewhere.

    recipe: what the flags go over, which names the components that they do not
    """
    words = list(_words(rest))
    named = {path[0]: value for path, _, value in words if path[1:] == ["name"]}
    nested: dict[str, Any] = {}
    for path, key, text in words:
        leaf = _value(path, f"--{key}", text, named, recipe or {})
        for part in reversed(path):
            leaf = {part: leaf}
        nested = _deep(nested, leaf)
    return nested


def _words(rest: Sequence[str]) -> Iterator[tuple[list[str], str, str]]:
    """(where it belongs, the flag as it was typed, its value)"""
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
                    f"--{key[:200]}: expected a value after it; one that begins with -- goes"
                    " behind a =."
                )
            value = words.pop(0)
        if path[-1] in KEYS and len(path) == 1:
            path.append("name")
        yield path, key[:200], value


def _value(
    path: Sequence[str], where: str, text: str, named: Mapping[str, str], recipe: Mapping[str, Any]
) -> Any:
    key, option = path[0], path[-1]
    if key not in KEYS or len(path) != 2:
        return flag_value(text, where)
    if option == "name":
        return text
    texts = text_options(key, _name_of(key, named, recipe), import_it=key in named)
    if option not in texts or (texts[option] and text == "null"):
        return flag_value(text, where)
    return text


def _name_of(key: str, named: Mapping[str, str], recipe: Mapping[str, Any]) -> str:
    known = recipe.get(key)
    return named.get(key) or str(known.get("name") if isinstance(known, Mapping) else known)


def _deep(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Flags only add to one another, so a component's name keeps the options given beside it."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            _deep(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged
