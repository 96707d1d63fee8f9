"""Evaluations along a run, on fixed prompts and noise: before some epochs and at the end."""

from rediffuse.callbacks.progress import Display
from rediffuse.callbacks.protocol import Callback, Epoch, RunState
from rediffuse.evaluation.monitor import Monitor
from rediffuse.evaluation.pictures import Pictures
from rediffuse.runs import checkpoint
from rediffuse.runs.rows import read_metrics, read_monitor
from rediffuse.verdict.overoptimisation import Course, Followed


class Evaluator(Callback):
    """Samples the fixed prompts and measures the images. Stops an over-optimised run if the
    configuration says so.

    Attributes:
        pictures: Samples and saves the images.
        course: Whether the run is over-optimised, and its best checkpoint; known to the main
            process only.
    """

    def __init__(self, pictures: Pictures, monitor: Monitor, display: Display) -> None:
        self.pictures = pictures
        self.course = Course(None, None)
        self._monitor, self._display = monitor, display
        monitor.view = pictures.view
        self._followed = Followed()
        self._evaluated: int | None = None

    def run_begins(self, run: RunState) -> None:
        if run.world.is_main:
            self._followed = Followed(read_metrics(run.folder), read_monitor(run.folder))

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        self._followed.metrics.append(epoch.metrics)

    def epoch_begins(self, run: RunState) -> None:
        if run.config.evaluation.is_due(run.epoch):
            self._evaluate(run)
        if self.course.fall and run.config.evaluation.on_overoptimisation == "stop":
            run.stop()

    def run_ends(self, run: RunState, error: BaseException | None) -> None:
        if error is None and self._evaluated != run.epoch:
            self._evaluate(run)

    def _evaluate(self, run: RunState) -> None:
        """Evaluates the policy in the main process; all processes must call it together."""
        self._evaluated = run.epoch
        run.world.together(lambda: self._look(run) if run.world.is_main else None)

    def _look(self, run: RunState) -> None:
        run.world.heart.beat("evaluating fixed prompts")
        with run.learner.average.shown():
            pictures = self.pictures.save(run.folder.samples / f"epoch-{run.epoch:05d}")
            self._followed.looks.append(self._monitor.look(run.epoch, pictures))
        known, action = self.course.fall, run.config.evaluation.on_overoptimisation
        kept = run.folder.planned_checkpoints(
            run.config.logging.checkpoint_every, run.config.epochs
        )
        self.course = self._followed.course(kept)
        checkpoint.call_best(run.folder.checkpoints, self.course.best)
        if self.course.fall and not known:
            self._display.overoptimised(self.course.fall, self.course.best, action)
