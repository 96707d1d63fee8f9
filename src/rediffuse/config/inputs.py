"""Inputs of a prompt that are files: `{"file": "photo.png"}`."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rediffuse.config.reading import MOST_PROMPT_BYTES, file_bytes, other_kind
from rediffuse.errors import ConfigError, quoted

KEY = "file"
LISTED = ".jsonl"
"""The end of the names of files whose lines may name input files."""


def file_of(value: object) -> str | None:
    """Returns the file that an input names; None if the input is another value."""
    if isinstance(value, Mapping) and value.keys() == {KEY} and isinstance(value[KEY], str):
        return str(value[KEY])
    return None


def with_absolute_files(inputs: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the inputs with the absolute path of each file.

    Args:
        inputs: The inputs of a prompt, by name.
        folder: The folder that relative paths start from.

    Raises:
        ConfigError: A file does not exist or is not a plain file.
    """
    return {name: _located(name, value, folder) for name, value in inputs.items()}


def _located(name: str, value: Any, folder: Path) -> Any:
    file = file_of(value)
    if file is None:
        return value
    path = _absolute(file, folder)
    if path is None or not path.is_file():
        kind = other_kind(path) if path else ""
        what = f"is {kind}, not a plain file" if kind else "is not there"
        raise ConfigError(f"inputs.{name}: the file {quoted(path or file)} {what}.")
    return {KEY: str(path)}


def by_name(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the inputs with the name of each file in place of its path, for other machines."""
    return {
        name: value if (file := file_of(value)) is None else {KEY: Path(file).name}
        for name, value in inputs.items()
    }


def with_absolute_paths(content: bytes, folder: Path) -> bytes:
    """Returns the content of a .jsonl prompt file with absolute paths of input files, so that it
    can be moved to another folder. Lines without input files are unchanged.
    """
    if not _may_name_files(content):
        return content
    return b"\n".join(_absolute_line(line, folder) for line in content.splitlines()) + b"\n"


def _absolute_line(line: bytes, folder: Path) -> bytes:
    row = _row(line)
    inputs = row.get("inputs")
    if not isinstance(inputs, Mapping) or not any(map(file_of, inputs.values())):
        return line
    found = {
        name: {KEY: str(_absolute(file, folder) or file)} if (file := file_of(value)) else value
        for name, value in inputs.items()
    }
    return json.dumps({**row, "inputs": found}, ensure_ascii=False).encode()


def named_in(path: Path) -> list[Path]:
    """Returns the input files that a .jsonl prompt file names, each once. A file or line that
    cannot be read is skipped here; reading the prompts reports it.
    """
    if path.suffix.lower() != LISTED:
        return []
    try:
        content = file_bytes(path, MOST_PROMPT_BYTES)
    except (OSError, ConfigError):
        return []
    return list(dict.fromkeys(_named(content, path.parent)))


def _named(content: bytes, folder: Path) -> Iterator[Path]:
    for line in content.splitlines() if _may_name_files(content) else ():
        inputs = _row(line).get("inputs")
        for value in inputs.values() if isinstance(inputs, Mapping) else ():
            if (file := file_of(value)) and (found := _absolute(file, folder)):
                yield found


def short_list(files: list[Path]) -> str:
    """Returns a short text that identifies a list of files."""
    if len(files) == 1:
        return str(files[0])
    digest = hashlib.sha256("\0".join(map(str, files)).encode()).hexdigest()
    return f"{files[0]} and {len(files) - 1} more (sha256 {digest[:12]})"


def _row(line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, Mapping) else {}


def _may_name_files(content: bytes) -> bool:
    """Whether the content may contain the key "file", plain or escaped. Most prompt files do not,
    and parsing a large one takes seconds.
    """
    return b'"file"' in content or b"\\u" in content


def _absolute(file: str, folder: Path) -> Path | None:
    try:
        return (folder / file).resolve()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have
        return None
