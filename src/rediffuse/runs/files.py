"""The one module that writes into run folders: whole files or none, and never through a link.

A run folder may be a stranger's: a link in it, where a run writes, would overwrite any file of
whoever goes on with the run.
"""

import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rediffuse.errors import RunError

STAGED = ".staged-"
"""How the name of a file begins that is not whole yet."""


def refuse_links(path: Path) -> None:
    """Raises RunError if `path`, or a folder between it and its run's, is a link or a device. The
    run's own folder may be one.
    """
    above = [path, *path.parents]
    depth = next((i for i, place in enumerate(above) if i and (place / "config.yaml").exists()), 1)
    for place in above[:depth]:
        with suppress(FileNotFoundError):
            mode = place.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "not a plain file"
                raise RunError(
                    f"{place} is {kind}, and nothing in a run is read or written through one."
                    " Remove it to go on."
                )


def refuse_linked_folders(root: Path) -> None:
    """Raises RunError where a link stands in a run's folders, or leads from the run's folder to
    another.

    `refuse_links` finds a run's folder by its config.yaml, and a link may lead to a folder that has
    one too.
    """
    for folder, below, names in os.walk(root, followlinks=False):
        here = Path(folder)
        for path in map(here.joinpath, below if here == root else (*below, *names)):
            if path.is_symlink():
                refuse_links(path)


def make_folder(path: Path) -> Path:
    """Makes a folder and those above it. Raises RunError for a link on the way."""
    refuse_links(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _beside(path: Path) -> Path:
    """A name that nothing has, in the same folder."""
    return path.with_name(f"{STAGED}{secrets.token_hex(8)}-{path.name}")


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A place for a new file, which takes that of `path` where the block ends, on disk; where it
    fails, nothing is left of it.
    """
    refuse_links(path)
    new = _beside(path)
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield new
        sync(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file, or leaves the old one. Raises RunError where a link is in its place."""
    with staged(path) as new:
        new.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes a whole file, or leaves the old one, in UTF-8; see `write_bytes`."""
    write_bytes(path, content.encode())


def write_out(path: Path, content: str) -> Path:
    """A file that the command line names, outside of any run: the person's own links are
    followed.
    """
    place = path.resolve()
    if place.is_dir():
        raise RunError(f"--out: {path} is a folder; name a file in it, {path / 'report.html'}.")
    make_folder(place.parent)
    write_text(place, content)
    return path


def write_json(path: Path, content: Any) -> None:
    """Writes a whole file, or leaves the old one, as JSON; see `write_bytes`."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_new(path: Path, content: str) -> None:
    """Raises FileExistsError where something stands already: of two that write at once, one
    does.
    """
    refuse_links(path)
    new = _beside(path)
    try:
        with new.open("x", encoding="utf-8") as file:
            file.write(content)
        sync(new)
        _link(new, path)
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)


def _link(new: Path, path: Path) -> None:
    try:
        os.link(new, path)
    except FileExistsError:
        raise
    except OSError:  # no hard links here: two that write at once are not told apart
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(new, path)


def append(path: Path, content: bytes) -> None:
    """On disk when it returns; after the last whole line, where a kill has left half of one."""
    refuse_links(path)
    with open(
        path, "ab+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)
    ) as file:
        if os.fstat(file.fileno()).st_nlink > 1:
            raise RunError(
                f"{path} has another name elsewhere, and would be changed there too. Make it a"
                " file of its own to go on."
            )
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if not size:
        sync(path.parent)


def read_json(path: Path) -> Any:
    """Raises RunError where the file is none of JSON, as a power cut may have left one of an older
    version.
    """
    refuse_links(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Put back a copy of it, or start a new run."
        ) from error


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, whose files take their places in it where the block ends."""
    make_folder(path)
    new = _beside(path)
    new.mkdir()
    try:
        yield new
        for file in sorted(each for each in new.rglob("*") if each.is_file()):
            target = path / file.relative_to(new)
            make_folder(target.parent)
            refuse_links(target)
            sync(file)
            os.replace(file, target)
    finally:
        shutil.rmtree(new)
    sync(path)


def remove(path: Path) -> None:
    """Removes a file or a link, which is not followed; a missing one is none to remove."""
    path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Take away what a kill has left unfinished."""
    for path in (
        path
        for place in (folder, *folder.glob("*/"))
        if not place.is_symlink()
        for path in place.glob(f"{STAGED}*")
    ):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def digest(path: Path) -> str:
    """SHA-256 of what it contains, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until the disk holds a file or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
