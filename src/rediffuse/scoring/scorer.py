"""Rewards are computed beside the sampling, asked for again where that may help, and masked where
there is none.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace

import torch
from torch import Tensor

from rediffuse import faults
from rediffuse.config.schema import Scoring
from rediffuse.errors import RewardError, Status
from rediffuse.processes.threads import Abandoned, Caller, Pool
from rediffuse.rollout import joined
from rediffuse.scoring.asked import Asked
from rediffuse.scoring.journal import Paid, Scored
from rediffuse.scoring.judging import REASON, judged, sample_bytes, together
from rediffuse.scoring.scores import Scores, refuse_too_few
from rediffuse.types import Judgement, Prompt, Reward, Rollout

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
    """Of one process's share of an epoch. num_samples: of the epoch, all processes together
    tell: what is being waited for.

    caller: the run's, on whose thread the reward is called
    reasons: the first for which samples of the run got no reward; new ones are reported and put
        here.
    failure: the last, whether or not it passed.
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
    ) -> None:
        self.reward, self.name, self.options = reward, name, options
        self.epoch, self.paid = epoch, paid
        self.stop_if_asked, self.tell = stop_if_asked, tell
        self.caller = caller or Caller()
        self.reasons = [] if reasons is None else reasons
        self.num_samples, self.allowed = num_samples, int(options.max_failed * num_samples)
        self.done: dict[int, Scored] = {}
        self.seconds = 0.0
        self._worker = Pool(1)
        self._running: dict[Future[list[Scored]], Asked] = {}
        self._later: list[Asked] = []
        self._dispensable = 0
        self._masked = 0
        self._silent_since: float | None = None
        self._error: RewardError | None = None
        self.failure: RewardError | None = None

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
            rollout = joined(self._handed_over(rollouts), num_mine)
            self._until_waiting(0)
        finally:
            self._worker.stop()
        return rollout, Scores.of([self.done[place] for place in range(num_mine)], self.seconds)

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
        self._running[self._worker.submit(lambda: self._scored(asked))] = asked

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
                f"The reward {self.name} has given nothing for {deadline:g} seconds:"
                f" {self._error} Look after it, then go on with: rediffuse resume RUN"
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
                self.tell("the reward answers again")
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
        self.failure = error
        if not error.passing:
            self._mask(asked.again(error).lost(), asked, error)
            return
        self._error = error
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            self.tell(f"waiting for the reward: {error}")
        self._later.append(asked.again(error))

    def _scored(self, asked: Asked) -> list[Scored]:
        """On the worker's thread."""
        hashes = [int(each) for each in image_hashes(asked.images).tolist()]
        found: dict[int, Scored] = {}
        for i, image in enumerate(hashes):
            if self.paid and (
                sample := self.paid.known(self.epoch, asked.indices[i], image, asked.prompts[i])
            ):
                found[i] = sample
        rest = [i for i in range(len(hashes)) if i not in found]
        if rest:
            began = time.perf_counter()
            judgement = self._judgement(asked.images[rest], [asked.prompts[i] for i in rest])
            self.seconds += time.perf_counter() - began
            fresh = _samples(
                judgement,
                [asked.indices[i] for i in rest],
                [hashes[i] for i in rest],
                asked.attempts + 1,
            )
            if self.paid:
                self.paid.add(self.epoch, fresh, [asked.prompts[i] for i in rest])
            found |= dict(zip(rest, fresh, strict=True))
        return [found[i] for i in range(len(hashes))]

    def _judgement(self, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Where the reward fails on a batch, its images are asked about one at a time: most may be
        well.
        """
        try:
            return self._within_time(images, prompts)
        except RewardError as error:
            # without a cause, the reward itself says so
            if error.passing or error.__cause__ is None or len(prompts) == 1:
                raise
            alone: list[Judgement] = []
            failures = 0
            for i, prompt in enumerate(prompts):
                try:
                    alone.append(self._within_time(images[i : i + 1], [prompt]))
                except RewardError as worse:
                    self.failure = worse
                    failures += not worse.passing
                    if failures > self.allowed:
                        raise error from error.__cause__
                    status: Status = "timeout" if worse.passing else worse.status
                    alone.append(
                        Judgement(
                            torch.full((1,), torch.nan),
                            notes={REASON: [str(worse)]},
                            statuses=[status],
                        )
                    )
            return together(alone)

    def _within_time(self, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        seconds = self.options.timeout_seconds
        try:
            return self.caller.call(
                lambda: judged(self.reward, images, prompts, self.name), seconds
            )
        except Abandoned:
            raise RewardError(
                f"The reward {self.name} took more than {seconds:g} seconds on"
                f" {len(prompts)} images (scoring.timeout_seconds). That call is abandoned; the"
                " next one runs on a new thread.",
                "timeout",
                passing=True,
            ) from None


def _samples(
    judgement: Judgement, indices: Sequence[int], hashes: Sequence[int], attempts: int
) -> list[Scored]:
    values = judgement.values.tolist()
    parts = {name: each.tolist() for name, each in judgement.parts.items()}
    return [
        Scored(
            index,
            hashes[i],
            values[i] if judgement.statuses[i] == "ok" else math.nan,
            judgement.statuses[i],
            attempts,
            {name: each[i] for name, each in parts.items()},
            {name: texts[i] for name, texts in judgement.notes.items()},
        )
        for i, index in enumerate(indices)
    ]


def reason(sample: Scored) -> str:
    """What was said of a sample that has no reward, cut, and without control codes; empty where
    nothing was.
    """
    if sample.status in ("ok", "broken_sample"):
        return ""
    told = [f"{note} {text[:LONGEST_REASON]!r}" for note, text in sample.notes.items() if text]
    return f"{sample.status}: {', '.join(told)}" if told else ""


def image_hashes(images: Tensor) -> Tensor:
    """(B,) float64: 48 bits of the SHA-256 of each sample, which a double holds exactly: of an
    image's 8-bit pixels, of other samples in steps of 1/255. images: finite.
    """
    digests = [hashlib.sha256(each).digest()[:6] for each in sample_bytes(images)]
    return torch.tensor([int.from_bytes(digest, "big") for digest in digests], dtype=torch.float64)
