"""Commands in messages, quoted so that they can be pasted into a shell."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from rediffuse.terminal.output import printable

TAKE_TRUST = ("resume", "sample", "evaluate", "export")
_WORD = r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"])+"""
_OF_A_RUN = re.compile(rf"(?<!`)\brediffuse (resume|sample|evaluate|export|report) ({_WORD})")


def command(verb: str, *words: object) -> str:
    """Returns a command `rediffuse verb …` with each word quoted for a shell, for the end of a
    message.
    """
    return " ".join(["rediffuse", verb, *map(pasted, words)])


def pasted(word: object) -> str:
    """Quotes one word for a shell. Bytes of non-printable characters are escaped as bash and zsh
    read them.
    """
    text = str(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    if printable(text, most=None) == text:
        return shlex.quote(text)
    return (
        "$'"
        + "".join(
            chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in _bytes(text)
        )
        + "'"
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def pasteable(message: str, run: Path | None, needs_trust: Callable[[Path], bool]) -> str:
    """Completes the commands on a run in a message: inserts the run's path and --trust-code if
    needed.

    Args:
        message: The message, in which RUN stands for the run's path.
        run: The path to insert; None leaves RUN as it is.
        needs_trust: Whether commands on the run of that path need --trust-code.
    """

    def whole(found: re.Match[str]) -> str:
        verb, word = found[1], found[2]
        path = (
            run if word == "RUN" and run is not None else Path(next(iter(shlex.split(word)), word))
        )
        named = pasted(run) if word == "RUN" and run is not None else word
        trust = " --trust-code" if verb in TAKE_TRUST and needs_trust(path) else ""
        return f"rediffuse {verb} {named}{trust}"

    return _OF_A_RUN.sub(whole, message)
