"""Scoring of a run, whose epochs share the reward, its thread and the stored rewards."""

from collections.abc import Callable, Iterable

from rediffuse.config.schema import Config
from rediffuse.processes.threads import Caller
from rediffuse.processes.world import World
from rediffuse.scoring.journal import Paid
from rediffuse.scoring.scorer import Scorer
from rediffuse.scoring.scores import Scores, summary
from rediffuse.scoring.terms import Combination
from rediffuse.types import Metrics, Rollout


class RunScorer:
    """Scores the epochs of a run.

    Attributes:
        reward: All rewards that score an epoch's samples.
        paid: Stored rewards of an unfinished epoch, which are reused.
        caller: The thread on which the reward is called.
    """

    def __init__(
        self,
        reward: Combination,
        config: Config,
        world: World,
        paid: Paid,
        caller: Caller,
        tell: Callable[[str], None],
    ) -> None:
        self.reward, self.paid, self.caller = reward, paid, caller
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

    def summary(self, scores: Scores) -> Metrics:
        """Returns the epoch's metrics of its rewards. `relative_reward` marks a normalised sum,
        whose mean cannot be compared between epochs.
        """
        name = "" if self.reward.is_sum else self.reward.name
        found = {**summary(name, scores), "seconds_reward": scores.seconds}
        return {**found, "relative_reward": 1.0} if self.reward.is_relative else found
