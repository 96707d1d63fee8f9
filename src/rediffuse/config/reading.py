"""Safe reading of untrusted files and flags: regular files of limited size, and restricted YAML."""

import gc
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from rediffuse.errors import ConfigError, quoted

MOST_BYTES = 1_000_000
"""The largest YAML file or flag."""
MOST_PROMPT_BYTES = 200_000_000
"""The largest file of prompts."""
MOST_DEPTH = 20
"""The deepest nesting of values."""
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
)
TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """A loader of numbers, booleans, null and text. Dates, merge keys (`<<`) and default values
    (`=`) remain text.
    """


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, form)
        for tag, form in each
        if tag.rpartition(":")[2] in ("int", "float", "bool", "null")
    ]
    for first, each in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def file_bytes(path: Path, most: int) -> bytes:
    """Reads a file of limited size.

    Args:
        path: The file.
        most: The largest number of bytes.

    Raises:
        ConfigError: If the file is larger, or is a device, a pipe or a socket, which is not opened.
        OSError: If the file cannot be read, or is a folder.
    """
    if other := other_kind(path, folders=True):
        raise ConfigError(f"{quoted(path)} is {other}, not a plain file.")
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ConfigError(f"{quoted(path)} is larger than {most / 1e6:g} MB.")
    return content


@contextmanager
def uncollected() -> Iterator[None]:
    """Disables the garbage collector inside the context, for reading and importing, which leave
    little to collect. Otherwise it traverses everything that was read repeatedly: a million lines
    take twice as long, and importing the libraries of a run a fifth longer. What was read joins the
    oldest generation, which is seldom traversed.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.unfreeze()
            gc.enable()


def other_kind(path: Path, *, folders: bool = False) -> str:
    """Returns what `path` is, such as "a pipe"; empty if it is a regular file or does not exist.

    Args:
        path: The path.
        folders: Whether a folder counts as a regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # opening the file reports the reason
        return ""
    if stat.S_ISREG(mode) or (folders and stat.S_ISDIR(mode)):
        return ""
    return next((name for is_kind, name in KINDS if is_kind(mode)), "a device")


def yaml_file(path: Path) -> Any:
    """Returns the content of a YAML file of at most 1 MB. Raises ConfigError with file and line."""
    try:
        return yaml_value(file_bytes(path, MOST_BYTES).decode("utf-8-sig"), str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        said = (
            error.strerror
            if isinstance(error, OSError)
            else "it is not UTF-8 text"
            if "codec" in str(error)
            else error
        )
        raise ConfigError(f"Cannot read {quoted(path)}: {said}.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the keys and values of a YAML file. Raises ConfigError if it holds anything else."""
    content = yaml_file(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, not {type(content).__name__}.")
    return content


def yaml_value(text: str, where: str) -> Any:
    """Parses YAML.

    Args:
        text: The text.
        where: The file or the flag, for error messages, which add the line.

    Raises:
        ConfigError: If the text is not valid YAML; has anchors, aliases, tags, or keys that are
            repeated or not text; or exceeds MOST_BYTES or MOST_DEPTH.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{where} is larger than {MOST_BYTES / 1e6:g} MB.")
    try:
        text.encode()
        _refuse_events(text, where)
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _value(node, _Loader(""), where)
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where} is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{where}{_line(error)}: cannot read it as YAML: {_problem(error)}"
        ) from error


def flag_value(text: str, where: str) -> Any:
    """Parses the value of a flag like `yaml_value`, but takes text without quotes literally, even
    with a `#`.
    """
    value = yaml_value(text, where)
    return (
        text if isinstance(value, str) and text.strip()[:1] not in ("'", '"', "|", ">") else value
    )


def _refuse_events(text: str, where: str) -> None:
    """Checks the stream of events before any value is constructed."""
    depth = 0
    for event in map(_any, yaml.parse(text, Loader=_Loader)):
        line = f"{where}, line {event.start_mark.line + 1}"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(
                f"{line}: anchors (&) and aliases (*) are not supported; write the value out, or"
                " put the text in quotes."
            )
        if getattr(event, "tag", None):
            raise ConfigError(
                f"{line}: the tag {quoted(event.tag)} is not supported; write the plain value, or"
                " put it in quotes."
            )
        if depth > MOST_DEPTH:
            raise ConfigError(f"{line}: nested more than {MOST_DEPTH} deep.")


def _any(event: Any) -> Any:
    """Hides the type of an event from the type checker, since each kind has other fields."""
    return event


def _value(node: yaml.Node, loader: Any, where: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return dict(_pairs(node, loader, where))
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, loader, where) for each in node.value]
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError) as error:
        kind = node.tag.rpartition(":")[2]
        raise ConfigError(
            f"{where}, line {node.start_mark.line + 1}: {quoted(node.value)} is not a valid"
            f" {kind}; put text in quotes."
        ) from error


def _pairs(node: yaml.MappingNode, loader: Any, where: str) -> Iterator[tuple[str, Any]]:
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag != TEXT:
            raise ConfigError(
                f"{where}, line {line}: the key {quoted(_source(key))} is not text; put it in"
                " quotes."
            )
        if key.value in seen:
            raise ConfigError(
                f"{where}, line {line}: {quoted(key.value)} is already set in line"
                f" {seen[key.value]}; keep one."
            )
        seen[key.value] = line
        yield key.value, _value(value, loader, where)


def _source(node: yaml.Node) -> Any:
    return node.value if isinstance(node, yaml.ScalarNode) else "…"


def _line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    return str(
        getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    )
