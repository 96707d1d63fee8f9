"""Exceptions, grouped by who can fix them. Each class has the exit code of the command that it
ends.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

Status = Literal[
    "ok", "failed", "timeout", "invalid_shape", "non_finite", "unparseable", "broken_sample"
]
"""The status of a sample's reward; only samples with "ok" are trained on.

A "broken_sample" is not finite itself, so no reward was computed. Scores store a status by its
position here, so new ones must be appended.
"""


class RediffuseError(Exception):
    """The base class of all exceptions that rediffuse raises deliberately."""

    exit_code = 1


class ConfigError(RediffuseError, ValueError):
    """An invalid configuration. The message says what is possible instead."""

    exit_code = 2


class RunError(RediffuseError):
    """A run's folder already exists, cannot be written, is in use, or is not a run."""

    exit_code = 2


class RewardError(RediffuseError, RuntimeError):
    """A reward failed, or did not return one number for each sample.

    Attributes:
        status: The status of the affected samples.
        passing: Whether the failure is transient, so that a later attempt may succeed.
    """

    exit_code = 75

    def __init__(self, message: str, status: Status = "failed", *, passing: bool = False) -> None:
        super().__init__(message)
        self.status, self.passing = status, passing


class UnusableRewardError(RewardError):
    """The code of a reward fails for every sample, so that retrying is useless."""

    exit_code = 2


class NonFiniteError(RediffuseError, ArithmeticError):
    """Samples, updates or weights are not finite. The same configuration would fail in the same way
    again.

    Attributes:
        of_the_policy: Whether training may be the cause, so that the state at the beginning of the
            epoch may be at fault.
    """

    exit_code = 2

    def __init__(self, message: str, *, of_the_policy: bool = False) -> None:
        super().__init__(message)
        self.of_the_policy = of_the_policy


class CheckpointError(RediffuseError, RuntimeError):
    """No intact checkpoint of a run exists."""

    exit_code = 75


class LostProcessError(RediffuseError, RuntimeError):
    """Another process of the run exited or does not respond. The last completed epoch is saved."""

    exit_code = 75


class Interrupted(RediffuseError):
    """A signal requested the run to stop. The last completed epoch is saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.exit_code = 128 + signal


def did_you_mean(asked: str, known: Iterable[str]) -> str:
    """Returns " Did you mean …?" for the closest known name, to be appended to an error; empty
    without one.
    """
    near = get_close_matches(asked[:100], list(known), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def quoted(value: object, most: int = 100) -> str:
    """Returns the representation of a value for a message, cut to `most` characters."""
    try:
        text = repr(str(value) if isinstance(value, Path) else value)
    # an integer with thousands of digits, or a structure that contains itself
    except (
        ValueError,
        RecursionError,
    ):
        text = f"{type(value).__name__} too long to show"
    return text if len(text) <= most else f"{text[: most - 1]}…"
