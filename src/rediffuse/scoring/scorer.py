"""Rewards are computed beside the sampling, asked for again where that may help, and masked where
there is none.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace

from rediffuse import faults
from rediffuse.config.schema import Scoring
from rediffuse.errors import RewardError
from rediffuse.processes.threads import Caller, Pool
from rediffuse.scoring.asked import Asked
from rediffuse.scoring.batch_scorer import BatchScorer
from rediffuse.scoring.journal import Paid, Scored
from rediffuse.scoring.scores import Scores, refuse_too_few
from rediffuse.scoring.watched import Watched
from rediffuse.types import Reward, Rollout

POLL_SECONDS = 0.2
MAX_WAITING = 128
MAX_WAITING_BYTES = 2**30
"""How much the samples that wait for their rewards may hold, beside those that lanes have made
meanwhile; a single video may be 400 MB.
"""
MIN_ATTEMPTS = 10
"""Of a failure that may pass, about a minute of them, before its samples are masked because they
are few.
"""
MOST_REASONS = 3
LONGEST_REASON = 200


class Scorer:
    """Scores one process's share of an epoch.

    Args:
        reward: The reward.
        options: How rewards are computed.
        name: The reward's name in messages.
        epoch: The number of the epoch, from 0.
        num_samples: The number of samples of the epoch, in all processes together.
        paid: The rewards that were obtained before, if they are stored.
        caller: The thread on which the reward is called.
        reasons: The first reasons for which samples of the run got no reward; new ones are reported
            and added.
        stop_if_asked: Raises if the run is to stop; called while rewards are waited for.
        tell: Prints what is waited for.
        watched: Rewards of weight 0 that score a share of the samples.
    """

    def __init__(
        self,
        reward: Reward,
        options: Scoring,
        *,
        name: str,
        epoch: int = 0,
        num_samples: int,
        paid: Paid | None = None,
        caller: Caller | None = None,
        reasons: list[str] | None = None,
        stop_if_asked: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda message: None,
        watched: Sequence[Watched] = (),
    ) -> None:
        self.name, self.options = name, options
        self.stop_if_asked, self.tell = stop_if_asked, tell
        self.reasons = [] if reasons is None else reasons
        self.num_samples, self.allowed = num_samples, int(options.max_failed * num_samples)
        self.done: dict[int, Scored] = {}
        self._batch = BatchScorer(
            reward,
            name,
            options.timeout_seconds,
            self.allowed,
            caller or Caller(),
            epoch,
            paid,
            watched,
        )
        self._worker = Pool(1)
        self._running: dict[Future[list[Scored]], Asked] = {}
        self._later: list[Asked] = []
        self._dispensable = 0
        self._masked = 0
        self._silent_since: float | None = None
        self._error: RewardError | None = None

    @property
    def failure(self) -> RewardError | None:
        """The last failure, whether or not it passed."""
        return self._batch.failure

    def score(self, rollouts: Iterable[Rollout], num_mine: int) -> tuple[Rollout, Scores]:
        """Each rollout's rewards are computed while the next is sampled; all, of `num_mine`, come
        back as one, without images.

        At most MAX_WAITING samples of MAX_WAITING_BYTES in all wait for their rewards, or one
        rollout's: then the sampling waits. Raises RewardError where more are missing than may be
        and asking again would not help, or has not for the deadline; then, and where
        `stop_if_asked` raises, those not yet begun are never computed.
        """
        self._dispensable = int(self.options.max_failed * num_mine)
        try:
            rollout = Rollout.joined(self._handed_over(rollouts), num_mine)
            self._until_waiting(0)
        finally:
            self._worker.stop()
        samples = [self.done[place] for place in range(num_mine)]
        return rollout, Scores.of(samples, self._batch.seconds)

    def _handed_over(self, rollouts: Iterable[Rollout]) -> Iterator[Rollout]:
        begin = 0
        for part in rollouts:
            end = begin + len(part.prompts)
            size = part.samples[0].nbytes if len(part.samples) else 1
            most = min(MAX_WAITING, MAX_WAITING_BYTES // size)
            self._until_waiting(max(0, most - len(part.prompts)))
            asked = Asked(part.samples, part.prompts, part.indices.tolist(), range(begin, end))
            whole = part.whole
            if len(whole) < len(part.prompts):
                self._leave_out(part, begin)
                asked = asked.only(whole)
            if whole:
                self._submit(asked)
            begin = end
            yield replace(part, samples=part.samples[:0].clone())

    def _leave_out(self, part: Rollout, begin: int) -> None:
        """The samples that are not finite: no reward is asked for them."""
        numbered = enumerate(zip(part.faults, part.indices.tolist(), strict=True), start=begin)
        broken = {place: Scored.broken(index, fault) for place, (fault, index) in numbered if fault}
        self.done |= broken
        self._masked += len(broken)
        if self._masked > self.allowed:
            self._refuse()

    def _refuse(self, error: RewardError | None = None) -> None:
        known = [sample for _, sample in sorted(self.done.items())]
        broken = [sample.notes[faults.NOTE] for sample in known if sample.status == "broken_sample"]
        reasons = list(dict.fromkeys(filter(None, map(reason, known))))[:MOST_REASONS]
        refuse_too_few(
            [sample.status for sample in known],
            self.num_samples,
            self.options,
            error,
            broken,
            reasons,
        )

    def _submit(self, asked: Asked) -> None:
        self._running[self._worker.submit(lambda: self._batch.score(asked))] = asked

    def _until_waiting(self, most: int) -> None:
        while True:
            for future in [each for each in self._running if each.done()]:
                asked = self._running.pop(future)
                try:
                    samples = future.result()
                except RewardError as error:  # told now, not when all is sampled
                    self._fail(asked, error)
                else:
                    self._take(asked, samples)
            self._ask_again(most)
            if sum(len(asked.place) for asked in (*self._running.values(), *self._later)) <= most:
                return
            if self._running:
                wait(self._running, POLL_SECONDS, FIRST_COMPLETED)
            else:
                time.sleep(POLL_SECONDS)
            self.stop_if_asked()

    def _ask_again(self, most: int) -> None:
        """For what failed and whose time has come; not for ever where the work waits for it, since
        more than `most` are missing, and all of them can be spared.
        """
        fresh = any(not asked.attempts for asked in self._running.values())
        retried = [*self._later, *(asked for asked in self._running.values() if asked.attempts)]
        missing = sum(len(asked.place) for asked in retried)
        few = self._masked + missing <= self._dispensable and not fresh and missing > most
        deadline = self.options.deadline_seconds
        late = self._silent_since is not None and time.monotonic() - self._silent_since > deadline
        if late and not few:
            raise RewardError(
                f"The reward {self.name} has returned nothing for {deadline:g} seconds:"
                f" {self._error} Fix it, then resume with: rediffuse resume RUN"
            ) from (self._error.__cause__ if self._error else None)
        for asked in list(self._later):
            if few and (late or asked.attempts >= MIN_ATTEMPTS):
                self._later.remove(asked)
                self._mask(asked.lost(), asked)
            elif asked.not_before <= time.monotonic():
                self._later.remove(asked)
                self._submit(asked)

    def _take(self, asked: Asked, samples: Sequence[Scored]) -> None:
        """What timed out is asked for again; what else is not ok is masked."""
        late = {i for i, sample in enumerate(samples) if sample.status == "timeout"}
        known = [i for i in range(len(samples)) if i not in late]
        if any(samples[i].status == "ok" for i in known):
            if self._silent_since is not None:
                self.tell("the reward responds again")
            self._silent_since = self._error = None
        self._mask([samples[i] for i in known], asked.only(known))
        if late:
            self._fail(
                asked.only(sorted(late)),
                RewardError(f"{len(late)} images timed out.", "timeout", passing=True),
            )

    def _mask(
        self, samples: Sequence[Scored], asked: Asked, error: RewardError | None = None
    ) -> None:
        for place, sample in zip(asked.place, samples, strict=True):
            self.done[place] = sample
        for why in filter(None, map(reason, samples)):
            if why not in self.reasons and len(self.reasons) < MOST_REASONS:
                self.reasons.append(why)
                self.tell(f"no reward for a sample: {why}")
        self._masked += sum(sample.status != "ok" for sample in samples)
        if self._masked > self.allowed:
            self._refuse(error)

    def _fail(self, asked: Asked, error: RewardError) -> None:
        self._batch.failure = error
        if not error.passing:
            self._mask(asked.again(error).lost(), asked, error)
            return
        self._error = error
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            self.tell(f"waiting for the reward: {error}")
        self._later.append(asked.again(error))


def reason(sample: Scored) -> str:
    """What was said of a sample that has no reward, cut, and without control codes; empty where
    nothing was.
    """
    if sample.status in ("ok", "broken_sample"):
        return ""
    told = [f"{note} {text[:LONGEST_REASON]!r}" for note, text in sample.notes.items() if text]
    return f"{sample.status}: {', '.join(told)}" if told else ""
