"""Remedies for common mistakes in reward functions, as sentences for error messages."""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PROMPTS = (
    "a prompt is not a string but a Prompt: its text is prompt.text, its other data is"
    " prompt.metadata."
)
CURES = (
    (r"\bPrompt\b|text input must be of type|TextEncodeInput must be", PROMPTS),
    (
        r"SQLite objects created in a thread",
        "all calls of a reward run on one thread, which is not the one that imports its file: open"
        " the connection in the first call, or with sqlite3.connect(…, check_same_thread=False).",
    ),
    (
        r"signal only works in main thread",
        "rewards run on a background thread, which cannot set signal handlers;"
        " scoring.timeout_seconds limits the duration of a call.",
    ),
    (
        r"no current event loop",
        "use asyncio.run(…), or asyncio.get_event_loop() on the thread on which the reward is"
        " called.",
    ),
    (
        r"Cannot handle this data type",
        "images are floats in [0, 1] of shape (B, 3, H, W); for PIL:"
        " Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).",
    ),
)
"""Patterns of error messages, each with its remedy."""


def of_error(error: BaseException) -> str:
    """Returns the remedy for an exception of a reward; empty if it is unknown."""
    return next((cure for pattern, cure in CURES if re.search(pattern, str(error))), "")


def of_value(given: Any, size: int) -> str:
    """Returns the remedy for a reward's invalid output; empty if it is unknown.

    Args:
        given: The output, which is not `size` numbers. A coroutine is closed.
        size: The number of samples.
    """
    if inspect.iscoroutine(given):
        given.close()  # avoids the warning that it was never awaited
        return "Make it a plain function that calls async code with asyncio.run(…)."
    if given is None:
        return "The function ends without a return."
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping):
        return "Return the scores alone, without the dict: return scores."
    if isinstance(given, Mapping):
        return (
            "Return the numbers alone; to log their parts too, return"
            " rediffuse.types.Judgement(values, parts)."
        )
    if inspect.isgenerator(given):
        return "Return a list of it: list(…)."
    if isinstance(given, list | tuple):
        return _of_entries(given)
    shape = () if isinstance(given, int | float) else getattr(given, "shape", None)
    return "" if shape is None else _of_shape(tuple(shape), size)


def _of_entries(given: Sequence[Any]) -> str:
    if any(each is None for each in given):
        return "None is not a number; return float('nan') for an image that cannot be scored."
    odd = next((each for each in given if isinstance(each, str | bytes)), None)
    return (
        f"Its entries are {type(odd).__name__}: return float(…) of each." if odd is not None else ""
    )


def _of_shape(shape: tuple[int, ...], size: int) -> str:
    if not shape:
        return (
            "Return each image's own score, not one for the batch: a mean over (1, 2, 3), not"
            " over all."
        )
    return "Return its first column: scores[:, 0]." if shape == (size, 1) else ""


def of_number(value: float, largest: float) -> str:
    """Returns what is wrong with a value that cannot be trained on; empty if it can.

    Args:
        value: The value.
        largest: The largest magnitude that is allowed.
    """
    if abs(value) <= largest:
        return ""
    if math.isfinite(value):
        return f"more than float32 holds ({largest:.1e}): scale it down."
    return f"{value}: only finite numbers can be trained on."


def of_signature(reward: Callable[..., Any]) -> str:
    """Returns the remedy for a reward that is async or cannot be called with (images, prompts);
    empty for others.
    """
    if inspect.iscoroutinefunction(reward):
        return "it is async. Make it a plain function that calls async code with asyncio.run(…)."
    try:
        signature = inspect.signature(reward)
    except (TypeError, ValueError):  # some functions in C have no signature
        return ""
    try:
        signature.bind(None, None)
    except TypeError:
        return (
            f"it takes {signature}, but a reward is called with (images, prompts). Give it these"
            " two parameters; other data of a prompt is in prompt.metadata."
        )
    return ""
