"""What the files of the rooms say of themselves, read without importing them: torch alone takes a
second.
"""

import ast
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

KEYS = {
    "model": "models",
    "sampler": "samplers",
    "algorithm": "algorithms",
    "reward": "rewards",
    "prompts": "prompts",
}
"""The configuration's key of a component, and the room it is looked up in."""

PACKAGE = Path(__file__).parents[1]
HARMLESS = frozenset(
    re.findall(
        r"\w+",
        "int float bool None tuple True False Text Positive PositiveInt NonNegativeInt Share"
        " Spacing Penalty Annotated Field ge gt le lt allow_inf_nan Connection Method",
    )
)
"""Words of a type whose values are numbers, choices, or text that names nothing outside of the
run.
"""

REACHING = ("FilePath", "HubId", "Address", "Variable", "Permit")
"""Types of config/schema.py whose values may name what is outside of the run."""

CONNECTION = ("Address", "Variable", "Permit", "Connection")
"""Types of options that say how something is reached, which never changes a result."""

TEXTS = ("str", "Path", "Text", "FilePath", "HubId", "Address", "Variable")


@dataclass(frozen=True)
class Option:
    """A field as its file writes it. kind: one of REACHING; "harmless"; or "undeclared", which may
    reach anything.
    """

    annotation: str
    default: Any

    @property
    def kind(self) -> str:
        """The name of the type that says what the option may reach, harmless, or undeclared."""
        return next(
            (each for each in REACHING if each in self._words),
            "harmless" if self._words <= HARMLESS else "undeclared",
        )

    @property
    def _words(self) -> set[str]:
        """Of its type, without the values of a choice."""
        return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"Literal\[[^]]*]", "", self.annotation)))

    @property
    def is_of_a_connection(self) -> bool:
        """Whether it says how something is reached, and not what is computed."""
        return not self._words.isdisjoint(CONNECTION)

    @property
    def is_of_a_method(self) -> bool:
        """Whether methods that are compared may differ in it."""
        return "Method" in self._words

    @property
    def is_text(self) -> bool:
        """Whether a flag's words are its value as they stand."""
        return re.sub(r"\s*\|\s*None$", "", self.annotation) in TEXTS

    @property
    def may_be_none(self) -> bool:
        """Whether its type allows None."""
        return self.annotation.endswith("None")


def names(room: str) -> list[str]:
    """The names of a room's files; those that begin with an underscore are shared parts, not things
    to name.
    """
    found = [
        path
        for path in (PACKAGE / room).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    return sorted(path.stem for path in found if not path.stem.startswith("_"))


def purpose(room: str, name: str) -> str:
    """What a file says it is for, read without importing it."""
    first_paragraph = (ast.get_docstring(_parsed(_source(room, name))) or "").split("\n\n")[0]
    return " ".join(first_paragraph.split())


def _source(room: str, name: str) -> Path:
    path = PACKAGE / room / name
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def declared_options(room: str, name: str) -> dict[str, Option]:
    """The fields of what a file of a room holds; none where no file bears the name, which
    `lookup.check_name` refuses.
    """
    if name not in names(room):
        return {}
    tree = _parsed(_source(room, name))
    exported = next(
        ast.literal_eval(n.value)[0]
        for n in tree.body
        if isinstance(n, ast.Assign) and _is(n.targets[0], "__all__")
    )
    return _fields(tree, exported)


def result_options(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a component that its results depend on: all but those that say how
    something is reached.
    """
    known = declared_options(KEYS[key], str(options.get("name", "")))
    return {k: v for k, v in options.items() if k not in known or not known[k].is_of_a_connection}


def _fields(tree: ast.Module, class_name: str) -> dict[str, Option]:
    """Of a class of this file and of its bases, wherever in the house they are."""
    kind = next(
        (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name), None
    )
    if kind is None:
        places = [
            n.module
            for n in tree.body
            if isinstance(n, ast.ImportFrom) and class_name in [a.name for a in n.names]
        ]
        if not places or not str(places[0]).startswith("rediffuse."):
            return {}
        path = PACKAGE.parent.joinpath(*str(places[0]).split(".")).with_suffix(".py")
        return _fields(_parsed(path), class_name)
    found: dict[str, Option] = {}
    for base in kind.bases:
        found |= _fields(tree, base.id) if isinstance(base, ast.Name) else {}
    own = [
        n
        for n in kind.body
        if isinstance(n, ast.AnnAssign)
        and not (isinstance(n.value, ast.Call) and _is(n.value.func, "field"))
    ]
    return found | {
        n.target.id: Option(ast.unparse(n.annotation), _literal(n.value))
        for n in own
        if isinstance(n.target, ast.Name)
    }


def located(recipe: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same recipe, its relative paths taken from the folder that it lies in."""
    found = dict(recipe)
    for key in KEYS.keys() & recipe.keys():
        found[key] = _located(key, recipe[key], folder)
    if "rewards" in recipe:
        found["rewards"] = _located_rewards(recipe["rewards"], folder)
    if isinstance(evaluation := recipe.get("evaluation"), Mapping) and "held_out" in evaluation:
        held_out = _located_rewards(evaluation["held_out"], folder)
        found["evaluation"] = {**evaluation, "held_out": held_out}
    if isinstance(specials := recipe.get("with_algorithm"), Mapping):
        found["with_algorithm"] = {
            name: located(each, folder) if isinstance(each, Mapping) else each
            for name, each in specials.items()
        }
    return found


def _located_rewards(given: Any, folder: Path) -> Any:
    """A list, or a mapping of numbers to changes of a list that is extended."""
    if isinstance(given, Mapping) and "name" not in given:
        return {number: _located("reward", each, folder) for number, each in given.items()}
    several = given if isinstance(given, list) else [given]
    return [_located("reward", each, folder) for each in several]


def _located(key: str, options: Any, folder: Path) -> Any:
    """Of a component, as a name or a mapping; anything else stays, to be refused."""
    if isinstance(options, str):
        return _located_code(options, folder)
    if not isinstance(options, Mapping):
        return options
    name = options.get("name")
    known = _options_of_any(key, [name] if name else names(KEYS[key]))
    found = {
        k: _located_path(known[k].kind, value, folder) if k in known else value
        for k, value in options.items()
    }
    if isinstance(name, str):
        found["name"] = _located_code(name, folder)
    return found


def _options_of_any(key: str, listed: Sequence[Any]) -> dict[str, Option]:
    """The name may be that of the recipe which this one extends."""
    found: dict[str, Option] = {}
    for name in listed:
        found |= declared_options(KEYS[key], name)
    return found


def _located_code(name: str, folder: Path) -> str:
    place, _, attribute = name.rpartition(":")
    return f"{folder / place}:{attribute}" if place.endswith(".py") else name


def _located_path(kind: str, value: Any, folder: Path) -> Any:
    """A model that lies beside the recipe is meant before one of the Hub with the same name."""
    if not isinstance(value, str) or not value or value.startswith("~"):
        return value
    beside = folder / value
    if kind == "FilePath" or (
        kind == "HubId" and (value.startswith(".") or os.path.exists(beside))
    ):
        return str(beside)
    return value


def _literal(node: ast.expr | None) -> Any:
    """A default value that is spelt out; None for any other."""
    try:
        return ast.literal_eval(node) if node else None
    except ValueError:
        return None


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
