"""A run's folder: locked while in use, with a fixed path for everything in it."""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from rediffuse.config.schema import Config, Rows, from_yaml, to_yaml
from rediffuse.errors import RunError
from rediffuse.runs import files


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's files, its lock and its configuration."""

    path: Path

    @property
    def metrics(self) -> Path:
        """The log with a row for each epoch."""
        return self.path / "metrics.jsonl"

    @property
    def rewards(self) -> Path:
        """The log with a row for each sample."""
        return self.path / "rewards.jsonl"

    @property
    def monitor(self) -> Path:
        """The log with a row for each evaluation on the fixed prompts and seeds."""
        return self.path / "monitor.jsonl"

    @property
    def verdict(self) -> Path:
        """The verdict's findings as JSON."""
        return self.path / "verdict.json"

    @property
    def evaluation(self) -> Path:
        """The folder that `rediffuse evaluate` writes to."""
        return self.path / "evaluation"

    def paid(self, rank: int) -> Path:
        """The journal of the rewards that one process obtained in the unfinished epoch."""
        return self.path / f"rewards.paid-{rank}.jsonl"

    def all_paid(self) -> list[Path]:
        """The journals of all processes; see `paid`."""
        return sorted(self.path.glob("rewards.paid-*.jsonl"))

    @property
    def samples(self) -> Path:
        """The images of the evaluations, a folder for each."""
        return self.path / "samples"

    def drop_samples_from(self, epoch: int) -> None:
        """Removes the images of evaluations after `epoch` epochs and later. If the run is resumed
        there, the logs lose their rows, and those that are due are made again.
        """
        for path in self.samples.glob("epoch-*"):
            number = path.name.removeprefix("epoch-")
            if number.isdecimal() and int(number) >= epoch:
                files.remove_folder(path)

    @property
    def checkpoints(self) -> Path:
        """The checkpoints, a folder for each."""
        return self.path / "checkpoints"

    def planned_checkpoints(self, every: int, last: int) -> list[int]:
        """Returns the epochs of the existing checkpoints, except those that an interruption added.

        Args:
            every: The value of logging.checkpoint_every.
            last: The planned number of epochs.
        """
        names = os.listdir(self.checkpoints) if self.checkpoints.is_dir() else []
        found = [int(name.removeprefix("epoch-")) for name in names if name.startswith("epoch-")]
        return sorted(epoch for epoch in found if epoch % every == 0 or epoch == last)

    @property
    def adapter(self) -> Path:
        """The exported weights, in a format that other tools load."""
        return self.path / "adapter"

    def exported(self, form: str, checkpoint: str) -> Path:
        """Returns the path of an exported file, whose name contains that of the run; `checkpoint`
        is "newest", "best", or a number of epochs.
        """
        which = "" if checkpoint == "newest" else f"-{checkpoint}"
        return self.path / "exported" / f"{self.path.resolve().name}{which}-{form}.safetensors"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def prompts(self) -> Path:
        """Copies of the files that the run's prompts are read from."""
        return self.path / "prompts"

    def config(self) -> Config:
        """Returns the configuration; relative paths of prompt files refer to the folder's present
        location.
        """
        config = from_yaml(self.path / "config.yaml")
        return replace(
            config, prompts={key: self._located(value) for key, value in config.prompts.items()}
        )

    def _located(self, value: Any) -> Any:
        inside = isinstance(value, str) and value.startswith(f"{self.prompts.name}/")
        return str((self.path / value).resolve()) if inside else value

    def _portable(self, value: Any) -> Any:
        root = f"{self.path.resolve()}/"
        return (
            value.removeprefix(root)
            if isinstance(value, str) and value.startswith(f"{root}{self.prompts.name}/")
            else value
        )

    def write_config(self, config: Config) -> None:
        """Replaces config.yaml atomically."""
        portable = replace(
            config, prompts={key: self._portable(value) for key, value in config.prompts.items()}
        )
        files.write_text(self.path / "config.yaml", to_yaml(portable))

    def keep_rows(self, rows: Mapping[str, int]) -> None:
        """Writes the rows of passes, by what they do, to config.yaml."""
        self.write_config(replace(self.config(), rows=Rows(**rows)))

    def note(self, key: str, value: Any) -> None:
        """Adds an entry to environment.json."""
        place = self.path / "environment.json"
        files.write_json(place, {**files.read_json(place), key: value})

    def pin(self, model: Mapping[str, Any], loaded: Config) -> None:
        """Writes options that became exact on loading, such as commits, to config.yaml: those of
        `model`, which also go to environment.json, and those of the rewards in `loaded`.
        """
        config = self.config()
        exact = {**config.model, **model}
        self.write_config(replace(config, model=exact, rewards=loaded.rewards))
        if model:
            self.note("model", dict(model))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the run inside the context. Raises RunError if another process holds the lock,
        which ends with its process.
        """
        lock, holder = filelock.FileLock(self.path / "run.lock"), self.path / "run.pid"
        files.refuse_links(self.path / "run.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            who = holder.read_text() if holder.exists() else "unknown"
            raise RunError(
                f"{self.path} is in use by process {who}. Wait for it, or stop it."
            ) from error
        except OSError as error:
            raise RunError(f"Cannot write to {self.path}: {error.strerror}.") from error
        try:
            files.write_text(holder, f"{os.getpid()} on {platform.node()}")
            files.sweep(self.path)
            yield
        finally:
            lock.release()


def existing(path: Path) -> RunFolder:
    """Returns the run in a folder. Raises RunError if there is none or a link is in it."""
    if not (path / "config.yaml").is_file():
        raise RunError(
            f"{path} is not a run: it has no config.yaml. A run is a folder that `rediffuse train`"
            " made."
        )
    if not (path / "config.yaml").stat().st_size:
        raise RunError(
            f"{path / 'config.yaml'} is empty: the process was killed before the run began."
            " Remove the folder, and train again."
        )
    files.refuse_linked_folders(path)
    return RunFolder(path)
