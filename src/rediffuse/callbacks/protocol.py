"""The callback interface. Callbacks display, evaluate, save and track a run outside the training
loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.learning.update import Learner
from rediffuse.processes.world import World
from rediffuse.rollout import Also, Draws
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import MetricsRow, UpdateColumns
from rediffuse.scoring.run_scorer import RunScorer
from rediffuse.scoring.scores import Scores
from rediffuse.types import Batch, CleanSamples, Prompt, PromptSet, Rollout


@dataclass(frozen=True)
class Epoch:
    """The results of one epoch.

    Attributes:
        number: The number of the epoch, from 0.
        prompts: The prompt of each sample, of all processes.
        rollout: This process's samples with their trajectories, without the images.
        scores: The rewards of all processes' samples, with their parts and statuses.
        advantages: Shape (num_samples,), NaN for samples that were not trained on.
        metrics: The epoch's row in metrics.jsonl.
    """

    number: int
    prompts: Sequence[Prompt]
    rollout: Rollout
    scores: Scores
    advantages: Tensor
    metrics: MetricsRow

    @property
    def rewards(self) -> Tensor:
        """The rewards (num_samples,), float64, NaN where masked."""
        return self.scores.rewards


@dataclass
class RunState:
    """The state of a run that its callbacks see; `rediffuse.Run` adds the training loop.

    Attributes:
        config: The run's configuration.
        folder: The run's files; only the main process is certain to have access to it.
        world: This process's rank, device and worker threads.
        prompts: The prompt set.
        learner: The policy with its optimizer.
        scorer: Computes the rewards.
        epoch: The number of completed epochs.
        also: Samples that callbacks want beside those of the next epoch.
    """

    config: Config
    folder: RunFolder
    world: World
    prompts: PromptSet
    learner: Learner
    scorer: RunScorer
    epoch: int = 0
    also: list[Also] = field(default_factory=list, init=False)
    _stopping: bool = field(default=False, init=False)

    def stop(self) -> None:
        """Ends the run before its next epoch in all processes; it suffices that one of them calls
        it.
        """
        self._stopping = True

    def is_over(self) -> bool:
        """Whether all epochs are complete or a process has stopped the run. All processes must call
        it together.
        """
        return self.epoch >= self.config.epochs or self.world.any(self._stopping)

    def draw_also(
        self,
        draws: Draws,
        receive: Callable[[Rollout], None],
        keep: type[Batch] = CleanSamples,
    ) -> None:
        """Draws more samples at the end of the next epoch's sampling, which leaves no worker thread
        idle in between. They are neither scored nor trained on, and change no bit of those that
        are. Call it in `epoch_begins`, in the processes that want them.

        Args:
            draws: The samples to generate.
            receive: Called with parts of them, in order, as soon as they are sampled.
            keep: What is kept of their trajectories; see `rollout.sampled`.
        """
        self.also.append(Also(draws, receive, keep))


class Callback:
    """The base class of callbacks, whose methods do nothing unless overridden.

    A run calls its callbacks in order, in every process; check `run.world.is_main` before writing a
    file. An exception ends the run, and is reported as a bug unless its class is one of
    rediffuse.errors. Callbacks must not change the run, except by `run.stop()` and
    `run.draw_also(…)`.
    """

    def run_begins(self, run: RunState) -> None:
        """Called once, after the models and the checkpoint of a resumed run are loaded."""

    def epoch_begins(self, run: RunState) -> None:
        """Called before an epoch's sampling, to which `run.draw_also` adds samples. If it stops the
        run, the epoch does not take place.
        """

    def sampled(self, run: RunState, batch: Rollout) -> None:
        """Called for each micro-batch of this process, with its images, before its rewards are
        known.
        """

    def scored(self, run: RunState, rollout: Rollout, scores: Scores) -> None:
        """Called with this process's samples, without images, and the scores of all processes."""

    def updated(self, run: RunState, learned: UpdateColumns) -> None:
        """Called after the epoch's updates, with the columns that describe them."""

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        """Called when an epoch is complete; `run.epoch` already includes it."""

    def run_ends(self, run: RunState, error: BaseException | None) -> None:
        """Called once at the end, also if the run fails.

        Args:
            run: The run.
            error: The exception that ended the run, or None.
        """
