"""Files and flags that anybody may have written, as plain values: plain files of a bounded size,
YAML without its traps.
"""

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
"""Of a YAML file or a flag."""
MOST_PROMPT_BYTES = 200_000_000
"""Of a file of prompts."""
MOST_DEPTH = 20
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
)
TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Numbers, booleans, null and text: dates, merged keys and default values stay the text that
    they are.
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
    """Raises ConfigError for what is not a plain file, such as a device or a pipe, without waiting
    for it; OSError as `open`.
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
    """Without the garbage collector, which goes over all that was read again and again: a million
    lines take twice as long.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def other_kind(path: Path, *, folders: bool = False) -> str:
    """What `path` is, if neither a plain file nor nothing at all. folders: whether a folder is fine
    too
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # opening it says why
        return ""
    if stat.S_ISREG(mode) or (folders and stat.S_ISDIR(mode)):
        return ""
    return next((name for is_kind, name in KINDS if is_kind(mode)), "a device")


def yaml_file(path: Path) -> Any:
    """Returns what a YAML file of at most 1 MB holds. Raises ConfigError with file and line."""
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
    """What the text says. where: a file or a flag, for messages, which give the line too

    Raises ConfigError for anchors and aliases, tags, keys that are not text or stand twice, more
    than MOST_BYTES or MOST_DEPTH.
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
    """As `yaml_value`, but text that is not in quotes is taken as it is, with `#` and all."""
    value = yaml_value(text, where)
    return (
        text if isinstance(value, str) and text.strip()[:1] not in ("'", '"', "|", ">") else value
    )


def _refuse_events(text: str, where: str) -> None:
    """Of the stream, before anything is built of it."""
    depth = 0
    for event in map(_any, yaml.parse(text, Loader=_Loader)):
        line = f"{where}, line {event.start_mark.line + 1}"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(
                f"{line}: anchors (&) and aliases (*) are not read here; write it out, or put the"
                " text in quotes."
            )
        if getattr(event, "tag", None):
            raise ConfigError(
                f"{line}: the tag {quoted(event.tag)} is not read here; write the plain value, or"
                " put it in quotes."
            )
        if depth > MOST_DEPTH:
            raise ConfigError(f"{line}: nested more than {MOST_DEPTH} deep.")


def _any(event: Any) -> Any:
    """Kinds of events have fields of their own."""
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
            f"{where}, line {node.start_mark.line + 1}: {quoted(node.value)} is not {kind} that"
            " can be read; put text in quotes."
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
                f"{where}, line {line}: {quoted(key.value)} stands in line {seen[key.value]}"
                " already; keep one."
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
