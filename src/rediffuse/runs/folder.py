"""A run's folder: made once, locked while in use, everything in it at a fixed place."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock

from rediffuse.config import inputs
from rediffuse.config.reading import MOST_PROMPT_BYTES, file_bytes
from rediffuse.config.schema import Config, from_yaml, to_yaml
from rediffuse.errors import RunError
from rediffuse.runs import files
from rediffuse.terminal.commands import command

REPORTED_PACKAGES = (
    "rediffuse",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "numpy",
    "pillow",
)


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run, and what concerns it as a whole: lock, configuration, notes."""

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
        """A row a look at the fixed pictures."""
        return self.path / "monitor.jsonl"

    @property
    def verdict(self) -> Path:
        """What the rules say of the run, as JSON."""
        return self.path / "verdict.json"

    @property
    def evaluation(self) -> Path:
        """Where `rediffuse evaluate` writes."""
        return self.path / "evaluation"

    def paid(self, rank: int) -> Path:
        """What the rewards of the epoch under way gave, of one process."""
        return self.path / f"rewards.paid-{rank}.jsonl"

    def all_paid(self) -> list[Path]:
        """The journals of the rewards that each process obtained in an unfinished epoch."""
        return sorted(self.path.glob("rewards.paid-*.jsonl"))

    @property
    def samples(self) -> Path:
        """The fixed pictures, a folder for each evaluation."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """The checkpoints, a folder for each."""
        return self.path / "checkpoints"

    def planned_checkpoints(self, every: int, last: int) -> list[int]:
        """Epochs of those that are there, less what an interruption added. every:
        logging.checkpoint_every
        last: planned
        """
        found = [int(path.name.removeprefix("epoch-")) for path in self.checkpoints.glob("epoch-*")]
        return sorted(epoch for epoch in found if epoch % every == 0 or epoch == last)

    @property
    def adapter(self) -> Path:
        """What was learned, in the form that other tools load."""
        return self.path / "adapter"

    def exported(self, form: str, checkpoint: str) -> Path:
        """Named so that it can be told from others in a folder of adapters. checkpoint: newest,
        best, or a number of epochs
        """
        which = "" if checkpoint == "newest" else f"-{checkpoint}"
        return self.path / "exported" / f"{self.path.resolve().name}{which}-{form}.safetensors"

    @property
    def report(self) -> Path:
        """The page of the run."""
        return self.path / "report.html"

    @property
    def prompts(self) -> Path:
        """Copies of the files that the run's prompts are read from."""
        return self.path / "prompts"

    def config(self) -> Config:
        """What its prompts name in the run's own folder is found wherever that lies by now."""
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
        """In place of the one that stands there, all or nothing."""
        portable = replace(
            config, prompts={key: self._portable(value) for key, value in config.prompts.items()}
        )
        files.write_text(self.path / "config.yaml", to_yaml(portable))

    def note(self, key: str, value: Any) -> None:
        """Into environment.json."""
        place = self.path / "environment.json"
        files.write_json(place, {**files.read_json(place), key: value})

    def pin(self, model: Mapping[str, Any], loaded: Config) -> None:
        """Options that became exact when the model and the rewards were loaded, into the
        configuration; the model's also beside the versions. loaded: the configuration with the
        rewards' options as they are by now.
        """
        config = self.config()
        exact, reward = {**config.model, **model}, {**config.reward, **loaded.reward}
        self.write_config(replace(config, model=exact, reward=reward, evaluation=loaded.evaluation))
        if model:
            self.note("model", dict(model))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises RunError if another process is at work here; a lock dies with its process."""
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


def create(path: Path, config: Config, device: str = "cpu") -> RunFolder:
    """Writes config.yaml and environment.json. Raises RunError where a folder stands already or
    cannot be made.
    """
    run = RunFolder(path)
    if path.exists() and (not path.is_dir() or not all(map(_left_by_a_kill, path.iterdir()))):
        raise RunError(
            f"{path} exists already. Choose another --run-dir, or go on with it:"
            f" {command('resume', path)}"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        files.write_json(path / "environment.json", {**environment(), "device": device})
        files.write_new(
            path / "config.yaml", to_yaml(replace(config, prompts=_copied(run, config.prompts)))
        )
    except FileExistsError as error:
        raise RunError(
            f"{path} was just taken by another process. Choose another --run-dir."
        ) from error
    except OSError as error:
        raise RunError(
            f"Cannot write to {path}: {error.strerror}. Choose another --run-dir."
        ) from error
    return run


def _copied(run: RunFolder, prompts: Mapping[str, Any]) -> dict[str, Any]:
    """The same options, of copies in the run's folder of the file that `path` names: a run needs
    nothing but its folder, and the input files that the prompts name.
    """
    place = prompts.get("path")
    if not isinstance(place, str) or not Path(place).is_file():
        return dict(prompts)
    path = Path(place)
    content = file_bytes(path, MOST_PROMPT_BYTES)
    if path.suffix.lower() == inputs.LISTED:
        content = inputs.with_absolute_paths(content, path.parent)
    files.make_folder(run.prompts)
    files.write_bytes(run.prompts / path.name, content)
    return {**prompts, "path": f"{run.prompts.name}/{Path(place).name}"}


def _left_by_a_kill(path: Path) -> bool:
    """Of a run that was killed while it was made: config.yaml comes last."""
    return path.name in ("environment.json", "prompts") or path.name.startswith(files.STAGED)


def existing(path: Path) -> RunFolder:
    """Returns the run in a folder. Raises RunError where there is none, or a link in it."""
    if not (path / "config.yaml").is_file():
        raise RunError(
            f"{path} is not a run: it has no config.yaml. A run is a folder that `rediffuse train`"
            " made."
        )
    if not (path / "config.yaml").stat().st_size:
        raise RunError(
            f"{path / 'config.yaml'} is empty: a kill left it before the run began. Remove the"
            " folder, and train anew."
        )
    files.refuse_linked_folders(path)
    return RunFolder(path)


def fresh_path(recipe: str) -> Path:
    """runs/<recipe>-<n>, the first number that is free; made at once, so that nobody else takes
    it.
    """
    stem = Path(recipe).with_suffix("").as_posix().replace("/", "-").strip(".-")
    number = 1
    while True:
        path = Path("runs") / f"{stem}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise RunError(
                f"Cannot write to {path}: {error.strerror}. Choose a place with --run-dir."
            ) from error
        else:
            return path


def discard(run: RunFolder) -> None:
    """Take back a folder in which no epoch was done, so that it does not stand in the way of the
    next try.
    """
    written = (
        "config.yaml",
        "environment.json",
        "run.pid",
        "run.lock",
        "monitor.jsonl",
        "verdict.json",
        "report.html",
    )
    for folder in (run.prompts, run.samples, run.checkpoints, run.adapter):
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
    for path in (*run.all_paid(), *(run.path / name for name in written)):
        files.remove(path)
    with suppress(OSError):  # someone else's file is in it by now
        run.path.rmdir()


def environment() -> dict[str, str]:
    """Returns the versions of Python, the platform and the packages that results depend on."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
    }
    for package in REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
