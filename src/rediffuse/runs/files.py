"""All writing into run folders: files are replaced atomically, and links are never followed.

A run folder may come from someone else; writing through a link in it would overwrite any file of
the user who resumes the run.
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
"""The prefix of the names of files that are being written."""


def refuse_links(path: Path) -> None:
    """Raises RunError if `path`, or a folder between it and the run's folder, is a link or a
    device. The run's folder itself may be a link.
    """
    above = [path, *path.parents]
    depth = next((i for i, place in enumerate(above) if i and (place / "config.yaml").exists()), 1)
    for place in above[:depth]:
        with suppress(FileNotFoundError):
            mode = place.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "not a plain file"
                raise RunError(
                    f"{place} is {kind}, but the files of a run must be plain files. Remove it to"
                    " continue."
                )


def refuse_linked_folders(root: Path) -> None:
    """Raises RunError if a folder in a run, or anything below such a folder, is a link.

    This complements `refuse_links`, which recognises a run's folder by its config.yaml and would
    accept a link to a folder with such a file.
    """
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir():
                _refuse_links_from(entry)


def _refuse_links_from(entry: "os.DirEntry[str]") -> None:
    """Raises RunError if an entry of a folder, or anything below it, is a link. The entry knows
    whether it is one without being asked of the disk, of which a long run has tens of thousands.
    """
    if entry.is_symlink():
        refuse_links(Path(entry.path))
    elif entry.is_dir():
        with suppress(PermissionError), os.scandir(entry.path) as below:
            for each in below:
                _refuse_links_from(each)


def make_folder(path: Path) -> Path:
    """Creates a folder and its parents. Raises RunError if a link is among them."""
    refuse_links(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _beside(path: Path) -> Path:
    """Returns an unused path in the same folder."""
    return path.with_name(f"{STAGED}{secrets.token_hex(8)}-{path.name}")


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file, which is synced and replaces `path` when the context
    ends; if it fails, the temporary file is deleted.
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
    """Writes a file atomically. Raises RunError if `path` is a link."""
    with staged(path) as new:
        new.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes a file in UTF-8 atomically; see `write_bytes`."""
    write_bytes(path, content.encode())


def write_out(path: Path, content: str) -> Path:
    """Writes a file named on the command line, outside of any run. The user's own links are
    followed.

    Raises:
        RunError: The path is a folder.
    """
    place = path.resolve()
    if place.is_dir():
        raise RunError(f"--out: {path} is a folder; name a file in it, {path / 'report.html'}.")
    make_folder(place.parent)
    write_text(place, content)
    return path


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically; see `write_bytes`."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_new(path: Path, content: str) -> None:
    """Writes a file that must not exist yet. Of several concurrent writers only one succeeds.

    Raises:
        FileExistsError: The file already exists.
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
    except OSError:  # the file system has no hard links: concurrent writers are not detected
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(new, path)


def append(path: Path, content: bytes) -> None:
    """Appends to a file of lines and syncs it to disk; an incomplete last line, left by a crash, is
    removed first.
    """
    refuse_links(path)
    with open(
        path, "ab+", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666)
    ) as file:
        if os.fstat(file.fileno()).st_nlink > 1:
            raise RunError(
                f"{path} is a hard link, so the file would also change under its other name."
                " Replace it with a copy to continue."
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
    """Reads a JSON file. Raises RunError if it is missing or invalid."""
    refuse_links(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RunError(
            f"{path} cannot be read ({error}). Restore a copy of it, or start a new run."
        ) from error


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder, whose files are moved to the same places in `path` when the
    context ends.
    """
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
    """Removes a file, or a link but not its target; a missing file is ignored."""
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it; a link is left as it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def sweep(folder: Path) -> None:
    """Deletes temporary files and folders that a crash has left in a folder and in the folders in
    it.
    """
    for place in (folder, *folder.glob("*/")):
        if not place.is_symlink():
            sweep_alone(place)


def sweep_alone(folder: Path) -> None:
    """Deletes temporary files and folders that a crash has left in a folder itself."""
    for path in folder.glob(f"{STAGED}*"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def digest(path: Path) -> str:
    """Returns the SHA-256 hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
