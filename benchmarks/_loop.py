"""The training loop of `rediffuse.begin` as benchmarks run it: epochs alone, without evaluations,
checkpoints, the export and the report.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import rediffuse

NEVER = 10**6
EPOCHS_ALONE: Mapping[str, Any] = {
    "epochs": NEVER,
    "logging": {"checkpoint_every": NEVER, "report_every": 0},
    "evaluation": {"every": 0, "num_prompts": 1, "images_per_prompt": 1, "kl": False},
}
"""Options of such a run. Its one evaluation is in the first epoch, which is not measured."""


class FinishedError(Exception):
    """Ends a run as an error does, which neither evaluates nor exports."""


@contextmanager
def epochs_alone(
    options: Mapping[str, Any],
    folder: Path,
    reward: Any,
    callbacks: Sequence[rediffuse.Callback] = (),
) -> Iterator[rediffuse.Run]:
    """Begins a run whose epochs are made by hand, with `options` over EPOCHS_ALONE. Inside, nothing
    is printed.
    """
    every = {**EPOCHS_ALONE, **options}
    with (
        suppress(FinishedError),
        redirect_stdout(io.StringIO()),
        rediffuse.begin(every, folder, reward, callbacks=callbacks) as run,
    ):
        yield run
        raise FinishedError
