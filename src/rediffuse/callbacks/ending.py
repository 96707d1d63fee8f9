"""The callback that exports the adapter and writes the report."""

from collections.abc import Callable

from rediffuse.callbacks.protocol import Callback, Epoch, RunState
from rediffuse.errors import CheckpointError, Interrupted, LostProcessError, RewardError
from rediffuse.runs import checkpoint, export
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import read_metrics
from rediffuse.verdict import verdict
from rediffuse.verdict.overoptimisation import Course


class Ending(Callback):
    """Exports the adapter at the end, and writes the verdict and the report then and every few
    epochs.

    If a run is stopped or its reward fails, both are those of the last completed epoch.

    Args:
        course: Returns whether the run is over-optimised, and its best checkpoint.
        write_report: Writes the report of a run's folder.
        say: Prints a message.
    """

    def __init__(
        self,
        course: Callable[[], Course],
        write_report: Callable[[RunFolder], object],
        say: Callable[[str], None],
    ) -> None:
        self._course, self._write_report, self._say = course, write_report, say

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        every = run.config.logging.report_every
        if run.world.is_main and every and run.epoch % every == 0 and run.epoch < run.config.epochs:
            self._report(run)

    def run_ends(self, run: RunState, error: BaseException | None) -> None:
        if error is None:
            run.world.together(lambda: self._finish(run) if run.world.is_main else None)
        elif run.world.is_main and isinstance(error, Interrupted | RewardError | LostProcessError):
            self._leave(run)

    def _finish(self, run: RunState) -> None:
        """Exports the newest checkpoint, or the best one of an over-optimised run, unless that is
        only to be warned of.
        """
        epochs, course = len(read_metrics(run.folder)), self._course()
        if course.fall and course.best and run.config.evaluation.on_overoptimisation != "warn":
            try:
                saved = checkpoint.load(run.folder.checkpoints, "best")
                run.learner.load_weights(saved)
                epochs = saved.epoch
            except CheckpointError as error:
                self._say(f"{error} The last checkpoint is exported instead.")
        self._export(run, epochs)

    def _leave(self, run: RunState) -> None:
        if run.epoch == 0:
            self._say("No epoch was finished, so there is no adapter yet.")
            return
        run.learner.load_weights(checkpoint.load(run.folder.checkpoints, str(run.epoch)))
        self._export(run, run.epoch)
        self._say(
            f"The adapter and the page are those of the last completed epoch: {run.epoch} of"
            f" {run.config.epochs} are done."
        )

    def _export(self, run: RunState, epochs: int) -> None:
        with run.world.heart.busy("writing the adapter"), run.learner.average.shown():
            export.adapter(run.learner.policy.denoiser, run.folder, epochs)
        self._report(run)

    def _report(self, run: RunState) -> None:
        """Writes the page. A failed page never stops a run: the error is printed, and `rediffuse
        report` can make it anew.
        """
        try:
            with run.world.heart.busy("writing the page"):
                verdict.write(run.folder)
                self._write_report(run.folder)
        except Exception as error:
            self._say(f"the page could not be written: {type(error).__name__}: {error}")
