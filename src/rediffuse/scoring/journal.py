"""Rewards that were paid for, on disk as they come: an epoch that is begun again does not ask for
them twice.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rediffuse import faults
from rediffuse.config.declared import result_options
from rediffuse.config.rewards import use_of
from rediffuse.errors import RunError, Status
from rediffuse.runs import files, log
from rediffuse.types import Prompt


@dataclass(frozen=True)
class Scored:
    """index: of the sample in the epoch
    image_hash: of `scoring.image_hashes`
    reward: NaN where the status is not ok.
    """

    index: int
    image_hash: int
    reward: float
    status: Status = "ok"
    attempts: int = 1
    parts: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def broken(cls, index: int, fault: str) -> "Scored":
        """Of a sample that is not finite, for which no reward was asked."""
        return cls(index, 0, math.nan, "broken_sample", 0, notes={faults.NOTE: fault})


class Paid:
    """The rewards of an unfinished epoch.

    Args:
        path: This process's file.
        rewards: Those of the run, with the options that loading made exact; what others gave is not
            reused.
    """

    def __init__(self, path: Path, rewards: Sequence[Mapping[str, Any]]) -> None:
        self._path, self._reward = path, _fingerprint(rewards)
        self._known: dict[tuple[int, int, int, str], Scored] = {}

    def load(self, paths: Iterable[Path], *, drop_damaged: bool = False) -> None:
        """What all processes of a run before this one left."""
        for path in paths:
            for number, row in enumerate(log.read(path, drop_damaged=drop_damaged), 1):
                try:
                    self._take(row)
                except (
                    KeyError,
                    TypeError,
                    AttributeError,
                ) as error:  # of an older version, which wrote no checksums
                    raise RunError(
                        f"{path}, row {number}: not a reward that a run wrote. Remove the file:"
                        " its rewards are asked again."
                    ) from error

    def _take(self, row: dict[str, Any]) -> None:
        if row.pop("of") != self._reward:
            return
        epoch, asked = row.pop("epoch"), row.pop("asked")
        parts = {
            name: math.nan if value is None else value for name, value in row.pop("parts").items()
        }
        self._known[epoch, row["index"], row["image_hash"], asked] = Scored(**row, parts=parts)

    def known(self, epoch: int, index: int, image_hash: int, prompt: Prompt) -> Scored | None:
        """Returns the reward that a sample was given before, if any was."""
        return self._known.get((epoch, index, image_hash, _digest(vars(prompt))))

    def add(self, epoch: int, samples: Sequence[Scored], prompts: Sequence[Prompt]) -> None:
        """Remembers the rewards of samples, in memory and on disk."""
        if not (
            self._path.parent / "config.yaml"
        ).is_file():  # a process on another machine may have no folder
            return
        rows = zip(samples, prompts, strict=True)
        kept = [(sample, _digest(vars(prompt))) for sample, prompt in rows if sample.status == "ok"]
        log.append(
            self._path,
            (
                {"epoch": epoch, "of": self._reward, "asked": asked, **_row(each)}
                for each, asked in kept
            ),
        )

    def clear(self) -> None:
        """All that was paid for is in a checkpoint."""
        self._known.clear()
        files.remove(self._path)


def _row(sample: Scored) -> dict[str, Any]:
    return {
        **asdict(sample),
        "parts": {name: finite_or_none(value) for name, value in sample.parts.items()},
    }


def finite_or_none(value: float) -> float | None:
    """Returns the value, or None where it is not finite."""
    return value if math.isfinite(value) else None


def _fingerprint(rewards: Sequence[Mapping[str, Any]]) -> str:
    """Of what the rewards that score an epoch's samples compute: their options and anyone's own
    files; not their weights, or how a server is reached.
    """
    found = []
    for entry in rewards:
        if not use_of(entry).scored_share:
            continue
        said = {k: v for k, v in result_options("reward", entry).items() if k != "weight"}
        file = Path(str(entry.get("name")).rpartition(":")[0])
        if file.suffix == ".py" and file.is_file():
            said["file"] = file.read_text(encoding="utf-8", errors="replace")
        found.append(said)
    return _digest(found)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[
        :16
    ]
