"""The rewards of an unfinished epoch, stored as they arrive, so that a resumed run reuses them."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rediffuse import faults
from rediffuse.config.declared import result_options
from rediffuse.config.rewards import trained, use_of
from rediffuse.errors import RunError, Status
from rediffuse.runs import files, log
from rediffuse.types import Prompt


@dataclass(frozen=True)
class Scored:
    """The reward of one sample.

    Attributes:
        index: The number of the sample in the epoch.
        image_hash: The sample's hash (`scorer.image_hashes`); 0 if it was not computed.
        reward: The value; NaN if the status is not "ok".
        status: The status of the reward.
        attempts: How many calls of the reward it took.
        parts: The parts of the reward, by name.
        notes: The notes of the reward, by name.
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
        """Returns the result for a sample that is not finite, for which no reward is computed."""
        return cls(index, 0, math.nan, "broken_sample", 0, notes={faults.NOTE: fault})


class Paid:
    """The stored rewards of an unfinished epoch.

    Args:
        path: The file of this process.
        rewards: The entries of the run's rewards, with the options that loading resolved. Stored
            rewards of other entries are not reused.
    """

    def __init__(self, path: Path, rewards: Sequence[Mapping[str, Any]]) -> None:
        self._path, self._reward = path, _fingerprint(rewards)
        self._known: dict[tuple[int, int, int, str], Scored] = {}

    def load(self, paths: Iterable[Path], *, drop_damaged: bool = False) -> None:
        """Loads the rewards that all processes stored before the run was resumed.

        Args:
            paths: The files of the processes.
            drop_damaged: Whether damaged lines are left out instead of raising an error.

        Raises:
            RunError: If a row is not a stored reward.
        """
        for path in paths:
            for number, row in enumerate(log.read(path, drop_damaged=drop_damaged), 1):
                try:
                    self._take(row)
                except (
                    KeyError,
                    TypeError,
                    AttributeError,
                ) as error:  # files of older versions have no checksums
                    raise RunError(
                        f"{path}, row {number}: this row was not written by a run. Remove the"
                        " file; its rewards will be requested again."
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
        """Returns the stored reward of a sample with this hash and prompt, or None."""
        return self._known.get((epoch, index, image_hash, _digest(vars(prompt))))

    def add(self, epoch: int, samples: Sequence[Scored], prompts: Sequence[Prompt]) -> None:
        """Stores the rewards of samples that are "ok" on disk, if the run's folder exists here."""
        if not (
            self._path.parent / "config.yaml"
        ).is_file():  # processes on other machines may lack the folder
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
        """Removes all stored rewards, once a checkpoint contains the epoch."""
        self._known.clear()
        files.remove(self._path)


def _row(sample: Scored) -> dict[str, Any]:
    return {
        **asdict(sample),
        "parts": {name: finite_or_none(value) for name, value in sample.parts.items()},
    }


def finite_or_none(value: float) -> float | None:
    """Returns the value, or None if it is not finite."""
    return value if math.isfinite(value) else None


def _fingerprint(rewards: Sequence[Mapping[str, Any]]) -> str:
    """Returns a hash of what determines the rewards of an epoch's samples: options and the content
    of user files, but neither weights nor how a server is reached.
    """
    found, alone = [], trained(rewards)
    for entry in rewards:
        if not use_of(entry).scored_share:
            continue
        use = use_of(entry)
        said = {k: v for k, v in result_options("reward", entry).items() if k != "weight"}
        said |= {"trained": use.is_trained, "sum": len(alone) > 1 or use.weight != 1}
        file = Path(str(entry.get("name")).rpartition(":")[0])
        if file.suffix == ".py" and file.is_file():
            said["file"] = file.read_text(encoding="utf-8", errors="replace")
        found.append(said)
    return _digest(found)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[
        :16
    ]
