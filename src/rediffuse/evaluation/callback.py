"""Evaluations along a run, on fixed prompts and noise: of the policy before some epochs and at the
end.
"""

from rediffuse.callbacks.progress import Display
from rediffuse.callbacks.protocol import Callback, Epoch, RunState
from rediffuse.config.schema import Config
from rediffuse.evaluation.fixed_samples import FixedSamples
from rediffuse.evaluation.monitor import Monitor
from rediffuse.evaluation.pictures import Pictures
from rediffuse.runs import checkpoint
from rediffuse.runs.rows import read_metrics, read_monitor
from rediffuse.scoring.scores import Scores
from rediffuse.types import Rollout
from rediffuse.verdict.overoptimisation import Course, Followed


class Evaluator(Callback):
    """Samples the fixed prompts and measures the images. Stops an over-optimised run if the
    configuration says so.

    Where it gives the same images, they are sampled along with the following epoch, in which no
    worker thread then waits for them, and measured before that epoch's updates.

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
        self._awaited: FixedSamples | None = None

    def run_begins(self, run: RunState) -> None:
        if run.world.is_main:
            self._followed = Followed(read_metrics(run.folder), read_monitor(run.folder))

    def epoch_begins(self, run: RunState) -> None:
        self._awaited = None
        if run.config.evaluation.is_due(run.epoch) and self._evaluated != run.epoch:
            if _goes_along(run.config):
                self._awaited = self.pictures.awaited()
            else:
                self._evaluate(run)
        if self._awaited is not None and run.world.is_main:
            run.draw_also(self.pictures.draws, self._awaited.receive, self.pictures.keep)
        if self.course.fall and run.config.evaluation.on_overoptimisation == "stop":
            run.stop()

    def scored(self, run: RunState, rollout: Rollout, scores: Scores) -> None:
        if self._awaited is not None:
            self._evaluate(run, self._awaited)

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        self._followed.metrics.append(epoch.metrics)

    def run_ends(self, run: RunState, error: BaseException | None) -> None:
        if error is None and self._evaluated != run.epoch:
            self._evaluate(run)

    def _evaluate(self, run: RunState, made: FixedSamples | None = None) -> None:
        """Evaluates the policy in the main process; all processes must call it together. `made`:
        the samples, if they are drawn already.
        """
        run.world.together(lambda: self._look(run, made) if run.world.is_main else None)
        self._evaluated = run.epoch

    def _look(self, run: RunState, made: FixedSamples | None) -> None:
        run.world.heart.beat("evaluating fixed prompts")
        with run.learner.average.shown():
            samples = made or self.pictures.sample()
            images = samples.rollout()
            self.pictures.save(run.folder.samples / f"epoch-{run.epoch:05d}", images)
            row = self._monitor.look(run.epoch, images, samples.trajectories())
        self._followed.looks.append(row)
        self._judge(run)

    def _judge(self, run: RunState) -> None:
        """Marks the best checkpoint, and reports over-optimisation when it is first found."""
        known, action = self.course.fall, run.config.evaluation.on_overoptimisation
        kept = run.folder.planned_checkpoints(
            run.config.logging.checkpoint_every, run.config.epochs
        )
        self.course = self._followed.course(kept)
        checkpoint.call_best(run.folder.checkpoints, self.course.best)
        if self.course.fall and not known:
            self._display.overoptimised(self.course.fall, self.course.best, action)


def _goes_along(config: Config) -> bool:
    """Whether the images can be sampled along with an epoch: they are those of the policy that is
    trained, and the epoch takes place whatever they show.
    """
    evaluation = config.evaluation
    return (
        evaluation.is_as_in_training
        and config.ema_decay is None
        and evaluation.on_overoptimisation != "stop"
    )
