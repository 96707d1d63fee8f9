"""The options and descriptions of components, read from their source without importing them:
importing torch alone takes a second.
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
"""For each configuration key of a component the folder of the package that contains it."""

PACKAGE = Path(__file__).parents[1]
HARMLESS = frozenset(
    re.findall(
        r"\w+",
        "int float bool None tuple True False Text Positive PositiveInt NonNegativeInt Share"
        " Spacing Penalty Annotated Field ge gt le lt allow_inf_nan Connection Method",
    )
)
"""Words in the types of options whose values are numbers, choices, or text that names nothing
outside the run.
"""

REACHING = ("FilePath", "HubId", "Address", "Variable", "Permit")
"""Types of config/schema.py whose values may name something outside the run."""

CONNECTION = ("Address", "Variable", "Permit", "Connection")
"""Types of options that say how something is reached, which does not change results."""

TEXTS = ("str", "Path", "Text", "FilePath", "HubId", "Address", "Variable")
"""Types of options whose flags are taken literally."""


@dataclass(frozen=True)
class Option:
    """An option of a component: a field of its dataclass, as written in the source.

    Attributes:
        annotation: The source of the type.
        default: The default if it is a literal, else None.
    """

    annotation: str
    default: Any

    @property
    def kind(self) -> str:
        """What the option may reach: one of REACHING; "harmless"; or "undeclared", which may reach
        anything.
        """
        return next(
            (each for each in REACHING if each in self._words),
            "harmless" if self._words <= HARMLESS else "undeclared",
        )

    @property
    def _words(self) -> set[str]:
        """The words of the type, without the values of Literals."""
        return set(re.findall(r"[A-Za-z_]\w*", re.sub(r"Literal\[[^]]*]", "", self.annotation)))

    @property
    def is_of_a_connection(self) -> bool:
        """Whether the option says how something is reached, not what is computed."""
        return not self._words.isdisjoint(CONNECTION)

    @property
    def is_of_a_method(self) -> bool:
        """Whether methods that are compared may differ in the option."""
        return "Method" in self._words

    @property
    def is_text(self) -> bool:
        """Whether a flag's value is taken literally, not read as YAML."""
        return re.sub(r"\s*\|\s*None$", "", self.annotation) in TEXTS

    @property
    def may_be_none(self) -> bool:
        """Whether the type allows None."""
        return self.annotation.endswith("None")


def names(room: str) -> list[str]:
    """Returns the sorted names of the components in a folder of the package. Files that begin with
    an underscore are shared parts and left out.
    """
    found = [
        path
        for path in (PACKAGE / room).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    return sorted(path.stem for path in found if not path.stem.startswith("_"))


def purpose(room: str, name: str) -> str:
    """Returns the first paragraph of a component's docstring, on one line."""
    first_paragraph = (ast.get_docstring(_parsed(_source(room, name))) or "").split("\n\n")[0]
    return " ".join(first_paragraph.split())


def _source(room: str, name: str) -> Path:
    path = PACKAGE / room / name
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def declared_options(room: str, name: str) -> dict[str, Option]:
    """Returns the options of a component by name; none if there is no such component, which
    `build.check_names` reports.
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
    """Returns the options that a component's results depend on: all but those that say how
    something is reached.

    Args:
        key: The configuration key of the component.
        options: Its name and options.
    """
    known = declared_options(KEYS[key], str(options.get("name", "")))
    return {k: v for k, v in options.items() if k not in known or not known[k].is_of_a_connection}


def _fields(tree: ast.Module, class_name: str) -> dict[str, Option]:
    """Returns the options of a class in this file and of its bases in this package."""
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
    """Returns a recipe with its relative paths resolved against the folder that contains it."""
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
    """Resolves the paths of a list of rewards, or of a mapping from numbers to changes of the list
    in the extended recipe.
    """
    if isinstance(given, Mapping) and "name" not in given:
        return {number: _located("reward", each, folder) for number, each in given.items()}
    several = given if isinstance(given, list) else [given]
    return [_located("reward", each, folder) for each in several]


def _located(key: str, options: Any, folder: Path) -> Any:
    """Resolves the paths of a component, given as a name or a mapping. Anything else is returned
    unchanged and refused later.
    """
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
    """Returns the options of all these components. A recipe without a component's name has that of
    the recipe it extends, which may be any.
    """
    found: dict[str, Option] = {}
    for name in listed:
        found |= declared_options(KEYS[key], name)
    return found


def _located_code(name: str, folder: Path) -> str:
    place, _, attribute = name.rpartition(":")
    return f"{folder / place}:{attribute}" if place.endswith(".py") else name


def _located_path(kind: str, value: Any, folder: Path) -> Any:
    """Resolves a path. A model beside the recipe takes precedence over one of the Hub with the same
    name.
    """
    if not isinstance(value, str) or not value or value.startswith("~"):
        return value
    beside = folder / value
    if kind == "FilePath" or (
        kind == "HubId" and (value.startswith(".") or os.path.exists(beside))
    ):
        return str(beside)
    return value


def _literal(node: ast.expr | None) -> Any:
    """Returns the value of a literal; None for any other expression."""
    try:
        return ast.literal_eval(node) if node else None
    except ValueError:
        return None


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
