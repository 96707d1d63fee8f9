"""Validation of a reward's output: one number and one status for each sample."""

from __future__ import annotations

import errno
import socket
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from numpy import ndarray

from rediffuse.deferred import torch
from rediffuse.errors import RewardError, Status, UnusableRewardError
from rediffuse.scoring import cures
from rediffuse.types import Judgement, Prompt, Reward

if TYPE_CHECKING:
    from torch import Tensor

STATUSES: tuple[Status, ...] = get_args(Status)
OF_REWARDS = tuple(status for status in STATUSES if status != "broken_sample")
"""The statuses that a reward may return. It never sees samples that are not finite."""
REASON = "error"
"""The note that says why a sample has no reward, unless the reward returns such a note itself."""
NETWORK = {
    "TransportError",
    "ConnectionError",
    "Timeout",
    "APIConnectionError",
    "ClientConnectionError",
}
"""Names of the network errors of HTTP clients, which need not be OSErrors."""
UNREACHABLE = {
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOBUFS,
    errno.EAGAIN,
}


def judged(reward: Reward, images: Tensor, prompts: Sequence[Prompt], name: str = "") -> Judgement:
    """Calls a reward on copies of its arguments and validates its output.

    Args:
        reward: The reward.
        images: Samples of shape (B, *S), finite.
        prompts: The prompt of each sample.
        name: The name of the reward in messages; by default its own.

    Returns:
        Values and parts (B,) in float64, and a status for each sample. Values that are not finite
        in float32 get the status "non_finite".

    Raises:
        RewardError: If the reward raises, or does not return one number for each sample.
    """
    name = name or name_of(reward)
    try:
        given = reward(
            images.clone(), [replace(prompt, metadata=dict(prompt.metadata)) for prompt in prompts]
        )
    except RewardError:
        raise
    except (
        Exception,
        SystemExit,
        KeyboardInterrupt,
        CancelledError,
    ) as error:  # the user's Ctrl-C arrives on the main thread, not here
        raise _failure(name, len(prompts), error) from error
    try:
        return _checked(name, given, len(prompts))
    except RewardError:
        raise
    except Exception as error:
        raise UnusableRewardError(
            f"The reward {name} must give one number per image, or a Judgement of them; it gave"
            f" {given!r:.60}.",
            "invalid_shape",
        ) from error


def _failure(name: str, size: int, error: BaseException) -> RewardError:
    passing, cure = _error_may_pass(error), cures.of_error(error)
    kind = UnusableRewardError if cure and not passing else RewardError
    raised = f"{type(error).__name__}: {error}".rstrip(" .:\n")
    return kind(
        f"The reward {name} failed on a batch of {size} images: {raised}."
        + (f" What to do: {cure}" if cure else ""),
        "timeout" if isinstance(error, TimeoutError) else "failed",
        passing=passing,
    )


def _checked(name: str, given: Any, size: int) -> Judgement:
    if not isinstance(given, Judgement):
        given = Judgement(_numbers(name, given, size))
    for note, texts in given.notes.items():
        if (
            isinstance(texts, str)
            or len(texts) != size
            or not all(isinstance(text, str) for text in texts)
        ):
            raise UnusableRewardError(
                f"The reward {name} must give one text per image, {size}, for the note {note}; it"
                f" gave {texts!r:.60}.",
                "invalid_shape",
            )
    parts = {
        part: _numbers(f"{name}, {part}:", values, size) for part, values in given.parts.items()
    }
    values, statuses = _numbers(name, given.values, size), list(given.statuses) or ["ok"] * size
    if len(statuses) != size or not set(statuses) <= set(OF_REWARDS):
        raise UnusableRewardError(
            f"The reward {name} must give one status per image, of {', '.join(OF_REWARDS)}; it"
            f" gave {statuses!r:.60}.",
            "invalid_shape",
        )
    largest = torch.finfo(torch.float32).max
    said = [
        cures.of_number(value, largest) if each == "ok" else ""
        for value, each in zip(values.tolist(), statuses, strict=True)
    ]
    if not any(said):
        return Judgement(values, parts, given.notes, statuses)
    why = [f"The reward {name} gave {each}" if each else "" for each in said]
    statuses = [
        "non_finite" if each else status for each, status in zip(said, statuses, strict=True)
    ]
    return Judgement(values, parts, {REASON: why, **given.notes}, statuses)


def known_values(judgement: Judgement) -> Tensor:
    """Returns the values (B,), with NaN for samples whose status is not "ok"."""
    well = torch.tensor([status == "ok" for status in judgement.statuses])
    return judgement.values.where(well, torch.nan)


def sample_bytes(samples: Tensor) -> list[bytes]:
    """Returns bytes that identify each of finite samples (B, *S): the 8-bit pixels of images, other
    samples rounded to multiples of 1/255.
    """
    levels = (samples * 255).round().to(torch.uint8 if samples.ndim == 4 else torch.int64)
    return [each.numpy().tobytes() for each in levels]


def together(batches: Sequence[Judgement]) -> Judgement:
    """Concatenates judgements. Parts that one of them lacks become NaN, notes an empty text."""
    parts = dict.fromkeys(name for batch in batches for name in batch.parts)
    notes = dict.fromkeys(name for batch in batches for name in batch.notes)
    return Judgement(
        torch.cat([batch.values.double() for batch in batches]),
        {
            name: torch.cat(
                [b.parts.get(name, torch.full_like(b.values, torch.nan)).double() for b in batches]
            )
            for name in parts
        },
        {
            name: [text for b in batches for text in b.notes.get(name, [""] * len(b.values))]
            for name in notes
        },
        [status for b in batches for status in b.statuses or ["ok"] * len(b.values)],
    )


def _numbers(name: str, given: Any, size: int) -> Tensor:
    try:
        if isinstance(given, torch.Tensor) and given.is_complex():
            raise TypeError
        values = torch.as_tensor(_plain(given), dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnusableRewardError(
            f"The reward {name} must give {size} numbers, one per image; it gave"
            f" {type(given).__name__}. {cures.of_value(given, size)}".rstrip(),
            "invalid_shape",
        ) from error
    if values.shape != (size,):
        raise UnusableRewardError(
            f"The reward {name} must give one number per image, shape ({size},); it gave shape"
            f" {tuple(values.shape)}. {cures.of_value(given, size)}".rstrip(),
            "invalid_shape",
        )
    return values


def _plain(given: Any) -> Any:
    """Converts the arrays and tensors in a list to plain values without graphs; torch refuses
    0-dimensional arrays in lists, and warns about other arrays and graphs.
    """
    if not isinstance(given, list | tuple):
        return given
    return [
        each.detach()
        if isinstance(each, torch.Tensor)
        else each.tolist()
        if isinstance(each, ndarray)
        else each
        for each in given
    ]


def name_of(reward: Callable[..., Any]) -> str:
    """Returns the name of a reward: that of its file for rewards of this package, otherwise that of
    the function or class.
    """
    room, _, file = type(reward).__module__.rpartition(".")
    return (
        file if room == "rediffuse.rewards" else getattr(reward, "__name__", type(reward).__name__)
    )


def may_pass(status: int) -> bool:
    """Whether an HTTP status from 400 on means a transient failure."""
    return status in (408, 409, 425, 429) or status >= 500


def _error_may_pass(error: BaseException) -> bool:
    """Whether an exception is transient: errors of the network, or of a server that is overloaded
    or broken, but not of files, refused requests or bugs.
    """
    status = _status_of(error)
    if status is not None:
        return may_pass(status)
    reason = getattr(error, "reason", None)  # as in urllib's errors
    if isinstance(reason, BaseException):
        return _error_may_pass(reason)
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    named = any(kind.__name__ in NETWORK for kind in type(error).__mro__)
    return named or (isinstance(error, OSError) and error.errno in UNREACHABLE)


def _status_of(error: BaseException) -> int | None:
    """Returns the HTTP status in an HTTP client's exception, or None."""
    for place in (getattr(error, "response", None), error):
        for name in ("status_code", "code", "status"):
            if isinstance(value := getattr(place, name, None), int) and 400 <= value < 600:
                return value
    return None
