"""JSON lines: one an epoch in metrics.jsonl, one a sample in rewards.jsonl; each with a checksum as
its last key.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rediffuse.errors import RunError
from rediffuse.runs import files
from rediffuse.terminal.commands import command

CHECKSUM = b', "crc32": '
LAST_NUMBER = re.compile(rb"(.*)" + b"." * len(CHECKSUM) + rb"(?<![0-9])([0-9]{1,10})\}", re.DOTALL)


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """On disk when it returns; after the last whole line, where a kill has left half of one."""
    files.append(path, b"".join(map(_line, rows)))


def read(path: Path, *, drop_damaged: bool = False) -> list[dict[str, Any]]:
    """Every whole line; a torn last one, left by a kill, is dropped.

    Lines without a checksum, which older versions wrote, are believed as long as none with one
    comes before.

    Raises:
        RunError: for a line that was changed since it was written, unless those are to be dropped.
    """
    files.refuse_links(path)
    rows: list[dict[str, Any]] = []
    summed = False
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], 1):
        row, has_sum = _parsed(line)
        if row is not None and (has_sum or not summed):
            rows.append(row)
        elif not drop_damaged:
            raise RunError(
                f"{path}, line {number}: not what was written there. Put back a copy of the file;"
                " or go on without such lines:"
                f" {command('resume', path.parent, '--drop-damaged-lines')}"
            )
        summed = summed or has_sum
    return rows


def keep_before(path: Path, epoch: int, *, drop_damaged: bool = False) -> None:
    """Drop the rows of `epoch` and later, which will be written again."""
    if path.exists():
        rows = read(path, drop_damaged=drop_damaged)
        files.write_bytes(path, b"".join(_line(row) for row in rows if row["epoch"] < epoch))


def _line(row: Mapping[str, Any]) -> bytes:
    """The checksum is of the row without it: against accidents, not against forgery."""
    text = json.dumps(row).encode()
    return text[:-1] + CHECKSUM + b"%d}\n" % zlib.crc32(text)


def _parsed(line: bytes) -> tuple[dict[str, Any] | None, bool]:
    """The row, None where it is damaged; and whether it has a checksum."""
    text, mark, end = line.rpartition(CHECKSUM)
    text = text + b"}" if mark else line
    if mark and end != b"%d}" % zlib.crc32(text):
        return None, True
    if not mark and _lost_its_key(line):
        return None, True
    try:
        row = json.loads(text)
    except ValueError:
        return None, bool(mark)
    return row if isinstance(row, dict) and isinstance(row.get("epoch"), int) else None, bool(mark)


def _lost_its_key(line: bytes) -> bool:
    """Whether a line without the checksum's key ends in its checksum: the key was changed, and the
    line is not an older one.
    """
    found = LAST_NUMBER.fullmatch(line)
    return found is not None and zlib.crc32(found[1] + b"}") == int(found[2])
