"""What a command prints when it ends: the verdict and the files, or how to go on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.errors import Interrupted, RediffuseError, RewardError
from rediffuse.lookup import trust
from rediffuse.terminal.commands import pasteable
from rediffuse.terminal.output import say, show, show_traceback

if TYPE_CHECKING:
    from rediffuse.verdict.verdict import Verdict


@contextmanager
def resumable(run: Path | None) -> Iterator[None]:
    """Inside, a failing reward or an interrupt ends the process at once, with the command that
    resumes the run.
    """
    try:
        yield
    except RewardError as error:
        if error.__cause__ is not None:
            show_traceback(error.__cause__)
        say(with_commands(error, run))
        os._exit(error.exit_code)  # at once: requests under way may last for minutes
    except Interrupted as stop:
        say(
            with_commands(
                f"Interrupted ({stop}). Every completed epoch is saved. Resume with: rediffuse"
                " resume RUN",
                run,
            )
        )
        os._exit(stop.exit_code)  # at once: a reward still being computed may take minutes


def show_results(run: Path) -> None:
    """Prints the verdict and the files of a run that has ended, and has written both."""
    from rediffuse.runs.folder import existing
    from rediffuse.verdict import verdict

    folder = existing(run)
    show_verdict(verdict.of_run(folder), run)
    show(f"done: the report is {folder.report}, the trained adapter {folder.adapter}")


def show_verdict(verdict: "Verdict | None", run: Path) -> None:
    """Prints a verdict's headline and suggestion, if there is a verdict."""
    if verdict is not None:
        show(f"{verdict.headline}\n{with_commands(verdict.suggestion, run)}")


def with_commands(message: object, run: Path | None = None) -> str:
    """Returns the message with its commands as they can be pasted here."""
    return pasteable(str(message), run, _needs_trust)


def _needs_trust(run: Path) -> bool:
    from rediffuse.runs.folder import existing

    try:
        return bool(trust.unallowed(existing(run).config(), run=run))
    except (RediffuseError, OSError):  # the command itself reports it
        return False
