"""The logs in JSON lines: one line per epoch in metrics.jsonl, one per sample in rewards.jsonl; the
last key of each line is a checksum.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rediffuse.errors import RunError
from rediffuse.runs import files
from rediffuse.terminal.commands import command

CHECKSUM = b', "crc32": '
LAST_NUMBER = re.compile(rb"(.*)" + b"." * len(CHECKSUM) + rb"(?<![0-9])([0-9]{1,10})\}", re.DOTALL)


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows to a log and syncs it to disk; an incomplete last line, left by a crash, is
    removed first.
    """
    files.append(path, b"".join(map(_line, rows)))


def read(path: Path, *, drop_damaged: bool = False) -> list[dict[str, Any]]:
    """Reads the rows of a log. An incomplete last line, left by a crash, is ignored.

    Lines without a checksum, which older versions wrote, are accepted if no line with one precedes
    them.

    Args:
        path: The log; a missing file has no rows.
        drop_damaged: Whether to skip damaged lines instead of raising an error.

    Raises:
        RunError: A line was changed after it was written.
    """
    files.refuse_links(path)
    checked = list(map(_checked, path.read_bytes().split(b"\n")[:-1])) if path.exists() else []
    rows: list[dict[str, Any]] = []
    summed = False
    for number, (row, (_, has_sum)) in enumerate(zip(_parsed(checked), checked, strict=True), 1):
        if row is not None and (has_sum or not summed):
            rows.append(row)
        elif not drop_damaged:
            raise RunError(
                f"{path}, line {number}: this line was changed after it was written. Restore a"
                " copy of the file; or resume without such lines:"
                f" {command('resume', path.parent, '--drop-damaged-lines')}"
            )
        summed = summed or has_sum
    return rows


def keep_before(path: Path, epoch: int, *, drop_damaged: bool = False) -> None:
    """Removes the rows of `epoch` and later ones, which will be written again."""
    if path.exists():
        rows = read(path, drop_damaged=drop_damaged)
        files.write_bytes(path, b"".join(_line(row) for row in rows if row["epoch"] < epoch))


def _line(row: Mapping[str, Any]) -> bytes:
    """Appends the checksum of the row to it. It detects accidental changes, not forgery."""
    text = json.dumps(row).encode()
    return text[:-1] + CHECKSUM + b"%d}\n" % zlib.crc32(text)


def _checked(line: bytes) -> tuple[bytes | None, bool]:
    """Returns the text of a row, None if its checksum is wrong, and whether it has one."""
    text, mark, end = line.rpartition(CHECKSUM)
    if mark:
        text += b"}"
        return text if end == b"%d}" % zlib.crc32(text) else None, True
    return None if _lost_its_key(line) else line, False


def _parsed(checked: Sequence[tuple[bytes | None, bool]]) -> list[dict[str, Any] | None]:
    """Returns the rows of the texts of lines, None for those that are none. Texts whose checksums
    are right are parsed at once, which is much faster.
    """
    texts = [text for text, has_sum in checked if has_sum and text is not None]
    if len(texts) == len(checked):
        with suppress(ValueError):
            found = json.loads(b"[" + b",".join(texts) + b"]")
            if len(found) == len(texts):
                return list(map(_row, found))
    return [None if text is None else _parsed_alone(text) for text, _ in checked]


def _parsed_alone(text: bytes) -> dict[str, Any] | None:
    try:
        return _row(json.loads(text))
    except ValueError:
        return None


def _row(found: object) -> dict[str, Any] | None:
    return found if isinstance(found, dict) and isinstance(found.get("epoch"), int) else None


def _lost_its_key(line: bytes) -> bool:
    """Whether a line without the checksum's key ends in its valid checksum: then the key was
    changed, and the line is not one of an older version.
    """
    found = LAST_NUMBER.fullmatch(line)
    return found is not None and zlib.crc32(found[1] + b"}") == int(found[2])
