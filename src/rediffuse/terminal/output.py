"""All output to the terminal: control characters are escaped, and closed pipes or ASCII terminals
cause no error.
"""

import errno
import os
import re
import shutil
import sys
import textwrap
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO, cast

from rich.console import Console
from rich.text import Text

Stream = Literal["out", "error"]

JOINERS = "\u200c\u200d"
"""Invisible characters that some scripts and emoji need."""
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""The Unicode categories that are escaped."""
MOST_ACCENTS = 4
"""The most combining accents on one letter. No script needs more, and a longer stack covers other
text.
"""
MOST = 20_000
"""The most characters of one message."""
NARROWEST = 20
"""Text is never wrapped to fewer columns."""
COMMAND = re.compile(r"(?<!`)\b(?<=\s)rediffuse [a-z]+ .*$")
"""A command at the end of a line, which must not be wrapped, so that it can be pasted."""
NOBODY_READS = (errno.EPIPE, errno.EIO)
"""The errors of a pipe whose reader has exited, or of a closed terminal."""


def printable(text: object, *, newlines: bool = False, most: int | None = MOST) -> str:
    """Escapes control characters, terminal sequences, bidirectional controls, lone surrogates and
    stacked accents.

    Args:
        text: Converted to a string.
        newlines: Whether to keep newlines and tabs.
        most: The most characters; the middle of a longer text is left out. None: no limit.
    """
    whole = str(text)
    if most is not None and len(whole) > most:
        whole = (
            f"{whole[: most // 2]} […{len(whole) - most // 2 * 2:,} characters left out…]"
            f" {whole[-(most // 2) :]}"
        )
    if whole.isascii() and whole.isprintable():
        return whole
    kept = JOINERS + ("\n\t" if newlines else "")
    piled, letters = 0, []
    for letter in whole:
        kind = unicodedata.category(letter)
        piled = piled + 1 if kind in ("Mn", "Me") else 0
        hidden = (kind in HIDDEN and letter not in kept) or piled > MOST_ACCENTS
        letters.append(_escape(letter) if hidden else letter)
    return "".join(letters)


def show(text: object, to: Stream = "out", *, wrap: bool = True, indent: int = 0) -> None:
    """Prints a message of one or more lines and flushes the stream.

    Args:
        text: The message.
        to: Standard output or standard error.
        wrap: Whether to wrap lines to the width of the terminal (or COLUMNS). Words, paths and
            commands are not broken; output to a file or pipe is not wrapped.
        indent: Additional indentation of continuation lines.
    """
    said, width = printable(text, newlines=True), _width(_stream(to))
    _write(_stream(to), (_wrapped(said, width, indent) if wrap and width else said) + "\n")


def say(message: object) -> None:
    """Prints a message of the program itself to standard error."""
    show(f"rediffuse: {message}", "error")


def show_traceback(error: BaseException) -> None:
    """Prints a traceback to standard error, with control characters escaped."""
    show("".join(traceback.format_exception(error)).rstrip("\n"), "error", wrap=False)


def console(to: Stream = "out", *, quiet: bool = False) -> Console:
    """Returns a rich console for tables and progress bars. Plain strings are never markup and are
    escaped by `printable`.
    """
    return _Console(
        file=cast(TextIO, _Tolerant(to)), quiet=quiet, markup=False, emoji=False, highlight=False
    )


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Prints warnings inside the context as one sentence, without the source line that caused
    them.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        yield


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    say(f"{category.__name__}: {message}")


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, newlines=True), **options)


class _Tolerant:
    """A file for rich that writes to the current `sys.stdout` or `sys.stderr`, below rich's own
    redirection.
    """

    def __init__(self, to: Stream) -> None:
        self._to: Stream = to

    def write(self, text: str) -> int:
        _write(self._real(), text)
        return len(text)

    def flush(self) -> None:
        """Does nothing, since each write is flushed."""

    def isatty(self) -> bool:
        stream = self._real()
        return stream is not None and not stream.closed and stream.isatty()

    def fileno(self) -> int:
        stream = self._real()
        return -1 if stream is None else stream.fileno()

    @property
    def encoding(self) -> str:
        return getattr(self._real(), "encoding", None) or "utf-8"

    def _real(self) -> TextIO | None:
        stream = _stream(self._to)
        return getattr(stream, "rich_proxied_file", stream)


def _width(stream: TextIO | None) -> int | None:
    """Returns the width to wrap to; None if the stream is not a terminal, which receives whole
    lines.
    """
    if not os.environ.get("COLUMNS", "").isdecimal() and (
        stream is None or stream.closed or not stream.isatty()
    ):
        return None
    return max(shutil.get_terminal_size().columns, NARROWEST)


def _wrapped(text: str, width: int, indent: int) -> str:
    return "\n".join(part for line in text.split("\n") for part in _parts(line, width, indent))


def _parts(line: str, width: int, indent: int) -> list[str]:
    if len(line) <= width:
        return [line]
    margin = " " * (len(line) - len(line.lstrip()) + indent)
    if found := COMMAND.search(line):
        return [*_parts(line[: found.start()].rstrip(), width, indent), f"{margin}  {found[0]}"]
    return textwrap.wrap(
        line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False
    )


def _stream(to: Stream) -> TextIO | None:
    """Returns the stream; None if it was closed before the program began."""
    return sys.stdout if to == "out" else sys.stderr


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None or stream.closed:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except OSError as error:
        if error.errno not in NOBODY_READS:
            raise
        _discard_from_now_on(stream)


def _discard_from_now_on(stream: TextIO) -> None:
    """Redirects the stream to the null device, so that work continues and flushing at exit does not
    fail.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _escape(letter: str) -> str:
    code = ord(letter)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
