"""JSON lines: one an epoch in metrics.jsonl, one a sample in rewards.jsonl."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """On disk when it returns; after the last whole line, where a kill has left half of one."""
    if _torn(path):
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def _torn(path: Path) -> bool:
    """Looks at the last byte alone: these files grow with the run, and are written to at every batch."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a torn last one, left by a kill, is dropped."""
    lines = path.read_text().split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1]]


def keep_before(path: Path, epoch: int) -> None:
    """Drop the rows of `epoch` and later, which will be written again."""
    if not path.exists():
        return
    staged = path.with_suffix(".new")
    staged.unlink(missing_ok=True)
    append(staged, (row for row in read(path) if row["epoch"] < epoch))
    os.replace(staged, path)
