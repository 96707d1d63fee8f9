"""The folder of a new run: created, and removed where the run fails before it has a result."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rediffuse.config import inputs
from rediffuse.config.reading import MOST_PROMPT_BYTES, file_bytes
from rediffuse.config.schema import Config, to_yaml
from rediffuse.errors import ConfigError, RediffuseError, RunError
from rediffuse.runs import files
from rediffuse.runs.folder import RunFolder
from rediffuse.terminal.commands import command

if TYPE_CHECKING:
    from rediffuse.processes.world import World

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


def create(path: Path, config: Config, device: str = "cpu") -> RunFolder:
    """Creates a run with config.yaml and environment.json. Raises RunError if its folder exists or
    cannot be created.
    """
    run = RunFolder(path)
    if path.exists() and (not path.is_dir() or not all(map(_left_by_a_kill, path.iterdir()))):
        raise RunError(
            f"{path} exists already. Choose another --run-dir, or resume it:"
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
    """Copies the file in option `path` into the run's folder, which then is self-contained but for
    the input files that prompts name, and returns the options with the copy's path.
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
    return {**prompts, "path": f"{run.prompts.name}/{path.name}"}


def _left_by_a_kill(path: Path) -> bool:
    """Whether a file may belong to a run that was killed during creation, when config.yaml is
    written last.
    """
    return path.name in ("environment.json", "prompts") or path.name.startswith(files.STAGED)


def fresh_path(recipe: str) -> Path:
    """Creates and returns runs/<recipe>-<n> for the first unused number n."""
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
    """Deletes a run without a completed epoch, so that the next attempt can use its folder."""
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
        files.remove_folder(folder)
    for path in (*run.all_paid(), *(run.path / name for name in written)):
        files.remove(path)
    with suppress(OSError):  # it contains other files
        run.path.rmdir()


def environment() -> dict[str, str]:
    """Returns the versions of Python, the platform and the packages that affect results."""
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


@contextmanager
def discarded_on_error(
    run: RunFolder, world: "World", *, unless_saved: bool = False
) -> Iterator[None]:
    """Deletes the new folder if the run fails inside, so that the next attempt can use it.

    Args:
        run: The run.
        world: The processes of the run, of which the first deletes it.
        unless_saved: Whether to keep it if an epoch is completed, or if the run can be resumed
            after the error.
    """
    try:
        yield
    except Exception as error:
        resumable = isinstance(error, RediffuseError) and not isinstance(error, ConfigError)
        if world.is_main and not (unless_saved and (resumable or run.metrics.exists())):
            discard(run)
        raise
