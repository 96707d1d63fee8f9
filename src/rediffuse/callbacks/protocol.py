"""Callbacks: what is done beside the loop, such as showing, evaluating, saving and tracking a
run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.learning.update import Learner
from rediffuse.processes.world import World
from rediffuse.runs.folder import RunFolder
from rediffuse.scoring.run_scorer import RunScorer
from rediffuse.scoring.scores import Scores
from rediffuse.types import Metrics, Prompt, PromptSet, Rollout


@dataclass(frozen=True)
class Epoch:
    """What one epoch made.

    Attributes:
        number: The first epoch is 0.
        prompts: One for each sample of the epoch, those of all processes.
        rollout: This process's share of the samples, with their trajectories but without their
            images.
        scores: The rewards of the samples of all processes, with their parts and statuses.
        advantages: (num_samples,), NaN for the samples that were not trained on.
        metrics: The row of metrics.jsonl.
    """

    number: int
    prompts: Sequence[Prompt]
    rollout: Rollout
    scores: Scores
    advantages: Tensor
    metrics: Metrics

    @property
    def rewards(self) -> Tensor:
        """(num_samples,) float64, NaN where a reward is masked."""
        return self.scores.rewards


@dataclass
class RunState:
    """The run as its callbacks see it; `rediffuse.Run` adds the loop.

    epoch: the number of whole epochs done
    folder: where the run leaves its files; the first process alone is sure to reach it
    """

    config: Config
    folder: RunFolder
    world: World
    prompts: PromptSet
    learner: Learner
    scorer: RunScorer
    epoch: int = 0
    _stopping: bool = field(default=False, init=False)

    def stop(self) -> None:
        """Ends the run before its next epoch, in all processes, even if only one of them asks."""
        self._stopping = True


class Callback:
    """Derive from it and override what is needed: what is not overridden does nothing.

    A run calls its callbacks in the order of their list, in every process: ask `run.world.is_main`
    before writing a file. An exception ends the run; one that is not of rediffuse.errors is
    reported as a bug. None of these calls may change the run, but for `run.stop()`.
    """

    def run_begins(self, run: RunState) -> None:
        """Called once, after the models and, if the run is resumed, its checkpoint are loaded."""

    def epoch_begins(self, run: RunState) -> None:
        """Called before anything of the epoch is sampled. If it stops the run, the epoch does not
        take place.
        """

    def sampled(self, run: RunState, batch: Rollout) -> None:
        """Called for each micro-batch of this process's samples, with their images, before their
        rewards are known.
        """

    def scored(self, run: RunState, rollout: Rollout, scores: Scores) -> None:
        """Called with this process's samples, without their images, and with the scores of all
        processes.
        """

    def updated(self, run: RunState, learned: Metrics) -> None:
        """Called after the epoch's updates, with the metrics that they gave."""

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        """Called when the epoch is whole; `run.epoch` counts it."""

    def run_ends(self, run: RunState, error: BaseException | None) -> None:
        """Called once in the end, also where the run fails. error: why it failed, or None."""
