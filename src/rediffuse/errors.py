"""What can go wrong, by the hand that can mend it. Each class carries the exit code of the
command.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

Status = Literal[
    "ok", "failed", "timeout", "invalid_shape", "non_finite", "unparseable", "broken_sample"
]
"""What became of a sample's reward; only those that are ok are learned from. broken_sample: the
sample itself is not finite, so no reward was asked. New ones go last: a run's numbers for them are
their places here.
"""


class RediffuseError(Exception):
    """Base of every error raised on purpose here."""

    exit_code = 1


class ConfigError(RediffuseError, ValueError):
    """The configuration asks for something that cannot be; says what could be asked instead."""

    exit_code = 2


class RunError(RediffuseError):
    """A run folder that exists, cannot be written, is in use, or is not a run."""

    exit_code = 2


class RewardError(RediffuseError, RuntimeError):
    """A reward failed, or gave back something other than one number per image.

    status: of the samples it was asked about
    passing: whether it may do better if it is asked again later
    """

    exit_code = 75

    def __init__(self, message: str, status: Status = "failed", *, passing: bool = False) -> None:
        super().__init__(message)
        self.status, self.passing = status, passing


class UnusableRewardError(RewardError):
    """The reward's own code is wrong, for every image: asking it again, now or later, would change
    nothing.
    """

    exit_code = 2


class NonFiniteError(RediffuseError, ArithmeticError):
    """Samples, updates or weights that are not finite; the same configuration would end the same
    way again.

    of_the_policy: whether what training changes may be the cause, so that the state it began the
    epoch with is in doubt
    """

    exit_code = 2

    def __init__(self, message: str, *, of_the_policy: bool = False) -> None:
        super().__init__(message)
        self.of_the_policy = of_the_policy


class CheckpointError(RediffuseError, RuntimeError):
    """No checkpoint of a run is whole."""

    exit_code = 75


class LostProcessError(RediffuseError, RuntimeError):
    """Another process of the run is gone or silent; what was done by the last whole epoch is
    saved.
    """

    exit_code = 75


class Interrupted(RediffuseError):
    """A signal asked the run to stop; what it had done by the last whole epoch is saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.exit_code = 128 + signal


def did_you_mean(asked: str, known: Iterable[str]) -> str:
    """A sentence to put behind an error about a name, or nothing."""
    near = get_close_matches(asked[:100], list(known), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def quoted(value: object, most: int = 100) -> str:
    """A value in a message, cut where it is long."""
    try:
        text = repr(str(value) if isinstance(value, Path) else value)
    # an integer of thousands of digits, or what is nested in itself
    except (
        ValueError,
        RecursionError,
    ):
        text = f"{type(value).__name__} too long to show"
    return text if len(text) <= most else f"{text[: most - 1]}…"
