"""Rewards that were paid for, on disk as they come: an epoch that is begun again does not ask for them twice."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rediffuse.errors import Status
from rediffuse.runs import log


@dataclass(frozen=True)
class Scored:
    """index: of the sample in the epoch   image_hash: of `scoring.image_hashes`   reward: NaN where the status is not ok."""

    index: int
    image_hash: int
    reward: float
    status: Status = "ok"
    attempts: int = 1
    parts: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


class Paid:
    """path: this process's file   reward: as it is configured; what another one gave is not taken for its own."""

    def __init__(self, path: Path, reward: Mapping[str, Any]) -> None:
        self._path, self._reward = path, _fingerprint(reward)
        self._known: dict[tuple[int, int, int], Scored] = {}

    def load(self, paths: Iterable[Path]) -> None:
        """What all processes of a run before this one left."""
        for row in (row for path in paths for row in log.read(path) if row.pop("of") == self._reward):
            epoch, parts = row.pop("epoch"), {name: _number(value) for name, value in row.pop("parts").items()}
            self._known[epoch, row["index"], row["image_hash"]] = Scored(**row, parts=parts)

    def known(self, epoch: int, index: int, image_hash: int) -> Scored | None:
        return self._known.get((epoch, index, image_hash))

    def add(self, epoch: int, samples: Sequence[Scored]) -> None:
        if (self._path.parent / "config.yaml").is_file():  # a process on another machine may have no folder
            log.append(
                self._path, ({"epoch": epoch, "of": self._reward, **_row(each)} for each in samples if each.status == "ok")
            )

    def clear(self) -> None:
        """All that was paid for is in a checkpoint."""
        self._known.clear()
        self._path.unlink(missing_ok=True)


def _row(sample: Scored) -> dict[str, Any]:
    return {**asdict(sample), "parts": {name: finite(value) for name, value in sample.parts.items()}}


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _fingerprint(reward: Mapping[str, Any]) -> str:
    """Of its options and, where it is anyone's own file, of the file; not of revisions, which loading makes exact."""
    options = {key: value for key, value in reward.items() if not key.endswith("revision")}
    content = json.dumps(options, sort_keys=True, default=str).encode()
    file = Path(str(reward.get("name")).rpartition(":")[0])
    if file.suffix == ".py" and file.is_file():
        content += file.read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]
