"""Commands that the program prints, so that they can be pasted into a shell."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from rediffuse.terminal.output import printable

TAKE_TRUST = ("resume", "sample", "evaluate", "export")
_WORD = r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"])+"""
_OF_A_RUN = re.compile(rf"(?<!`)\brediffuse (resume|sample|evaluate|export|report) ({_WORD})")


def command(verb: str, *words: object) -> str:
    """`rediffuse verb …`, each word quoted where a shell would take it apart; one that a message
    may end with.
    """
    return " ".join(["rediffuse", verb, *map(pasted, words)])


def pasted(word: object) -> str:
    """One word of a shell. What a terminal does not show is written by its bytes, as bash and zsh
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
    """The message with its commands as they can be pasted here: RUN is the run's path, and
    --trust-code is given where the run needs it.
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
