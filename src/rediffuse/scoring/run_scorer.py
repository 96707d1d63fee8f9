"""The rewards of a run, epoch by epoch, with what lasts from one to the next."""

from collections.abc import Callable, Iterable

from rediffuse.config.schema import Config
from rediffuse.processes.threads import Caller
from rediffuse.processes.world import World
from rediffuse.runs.rows import RewardColumns
from rediffuse.scoring.journal import Paid
from rediffuse.scoring.scorer import Scorer
from rediffuse.scoring.scores import Scores, summary
from rediffuse.scoring.terms import Combination
from rediffuse.types import Rollout


class RunScorer:
    """Scores the epochs of a run, with what lasts from one to the next.

    paid: the rewards that are on disk already, which are not asked for again
    caller: the one thread on which the reward is called
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
        """Scores this process's share of an epoch: the rewards of one batch are computed while the
        next is sampled.

        Returns all `num_mine` samples as one rollout, without their images, and their scores.
        Raises what `Scorer.score` raises.
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
        """Joins the scores of all processes, and makes the rewards of a weighted sum from those of
        its terms.

        Raises RewardError or NonFiniteError, in all processes, where more are missing than may be.
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
