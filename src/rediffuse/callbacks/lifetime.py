"""What callbacks are, and their first and last calls in a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rediffuse.callbacks.protocol import Callback, RunState
from rediffuse.errors import ConfigError, quoted


@contextmanager
def lifetime(run: RunState, callbacks: Sequence[Callback]) -> Iterator[None]:
    """Inside, epochs are made. Every callback whose `run_begins` returned gets `run_ends`, also if
    the run fails.
    """
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            callback.run_begins(run)
            begun.append(callback)
        yield
    except BaseException as error:
        _end(run, begun, error)
    else:
        _end(run, begun, None)


def _end(run: RunState, callbacks: Sequence[Callback], error: BaseException | None) -> None:
    """Calls each callback's `run_ends`, also if one before it fails, and raises the last error if
    there is any.
    """
    for callback in callbacks:
        try:
            callback.run_ends(run, error)
        except BaseException as own:
            error = own
    if error is not None:
        raise error


def refuse_other_objects(callbacks: Sequence[Callback]) -> None:
    """Raises ConfigError for classes and for objects of other classes."""
    for each in callbacks:
        if isinstance(each, type) or not isinstance(each, Callback):
            raise ConfigError(
                f"callbacks: {quoted(each)} is not a callback. Derive a class from"
                " rediffuse.Callback, and pass an object of it."
            )
