"""Scoring of a run, whose epochs share the reward, its thread and the stored rewards."""

from collections.abc import Callable, Iterable, Sequence

from rediffuse.config.schema import Config
from rediffuse.processes.threads import Caller
from rediffuse.processes.world import World
from rediffuse.runs.rows import RewardColumns
from rediffuse.scoring.journal import Paid
from rediffuse.scoring.scorer import Scorer
from rediffuse.scoring.scores import Scores, summary
from rediffuse.scoring.terms import Combination, Term
from rediffuse.scoring.watched import Watched
from rediffuse.types import Rollout


class RunScorer:
    """Scores the epochs of a run.

    Attributes:
        reward: The rewards that are trained on.
        paid: Stored rewards of an unfinished epoch, which are reused.
        caller: The thread on which the reward is called.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        config: Config,
        world: World,
        paid: Paid,
        caller: Caller,
        tell: Callable[[str], None],
    ) -> None:
        self.reward, self.paid, self.caller = Combination(terms, config.scoring), paid, caller
        self._watched = [
            Watched(term, config.scoring.untrained_seconds)
            for term in terms
            if not term.use.is_trained and term.use.scored_share
        ]
        self._config, self._world, self._tell = config, world, tell
        self._reasons: list[str] = []

    def score(
        self, rollouts: Iterable[Rollout], epoch: int, num_mine: int
    ) -> tuple[Rollout, Scores]:
        """Scores this process's share of an epoch; the rewards of one micro-batch are computed
        while the next is sampled.

        Args:
            rollouts: The micro-batches, as they are sampled.
            epoch: The number of the epoch.
            num_mine: The number of samples of this process.

        Returns:
            All samples as one rollout without images, and their scores.

        Raises:
            RewardError: If too many rewards are missing, and retries do not help.
            NonFiniteError: If samples that are not finite are the cause.
        """
        scorer = Scorer(
            self.reward,
            self._config.scoring,
            name=self.reward.name,
            epoch=epoch,
            num_samples=self._config.num_samples,
            paid=self.paid,
            caller=self.caller,
            reasons=self._reasons,
            stop_if_asked=self._world.stop_here_if_asked,
            tell=self._tell,
            watched=self._watched,
        )
        return scorer.score(rollouts, num_mine)

    def gather(self, own: Scores, rollout: Rollout) -> Scores:
        """Gathers the scores of all processes, and computes a weighted sum from its terms' values.

        Args:
            own: The scores of this process.
            rollout: The samples of this process.

        Raises:
            RewardError: In all processes, if too many rewards are missing.
            NonFiniteError: In all processes, if samples that are not finite are the cause.
        """
        scores = own.gathered(rollout.indices, self._config.num_samples, self._world)
        scores.refuse_too_few(self._config.scoring)
        return scores.combined(self.reward.combined) if self.reward.is_sum else scores

    def summary(self, scores: Scores) -> RewardColumns:
        """Returns the columns of the epoch's row that describe its rewards."""
        columns = summary("" if self.reward.is_sum else self.reward.name, scores)
        columns["seconds_reward"] = scores.seconds
        if self.reward.is_relative:
            columns["relative_reward"] = 1.0
        return columns
