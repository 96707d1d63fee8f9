"""The rewards of one batch of samples: those of before, then the reward's, one sample at a time
where the batch fails.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rediffuse.errors import RewardError, Status
from rediffuse.processes.threads import Abandoned, Caller
from rediffuse.scoring.asked import Asked
from rediffuse.scoring.journal import Paid, Scored
from rediffuse.scoring.judging import REASON, judged, sample_bytes, together
from rediffuse.scoring.watched import Watched
from rediffuse.types import Judgement, Prompt, Reward


@dataclass
class BatchScorer:
    """Scores the batches of one epoch.

    Attributes:
        reward: The reward.
        name: Its name in messages.
        timeout_seconds: The time limit of one call.
        most_failures: The number of single samples that may fail before the whole batch does.
        caller: The thread on which the reward is called.
        epoch: The number of the epoch, from 0.
        paid: The rewards that were obtained before, if they are stored.
        watched: Rewards of weight 0, which score the batch after it has the trained reward, and
            outside of its time limit.
        seconds: The time that calls of the reward have taken.
        failure: The last failure, whether or not it passed.
    """

    reward: Reward
    name: str
    timeout_seconds: float
    most_failures: int
    caller: Caller
    epoch: int = 0
    paid: Paid | None = None
    watched: Sequence[Watched] = ()
    seconds: float = field(default=0.0, init=False)
    failure: RewardError | None = field(default=None, init=False)

    def score(self, asked: Asked) -> list[Scored]:
        """Returns the reward of each sample, called on the scorer's worker thread. Rewards that
        were obtained before are not asked again.

        Raises:
            RewardError: If the reward fails on the whole batch.
        """
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
            images, prompts = asked.images[rest], [asked.prompts[i] for i in rest]
            judgement = self._judgement(images, prompts)
            for each in self.watched:
                judgement = each.beside(judgement, images, prompts)
            self.seconds += time.perf_counter() - began
            fresh = _samples(
                judgement,
                [asked.indices[i] for i in rest],
                [hashes[i] for i in rest],
                asked.attempts + 1,
            )
            if self.paid:
                self.paid.add(self.epoch, fresh, prompts)
            found |= dict(zip(rest, fresh, strict=True))
        return [found[i] for i in range(len(hashes))]

    def _judgement(self, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Where the reward fails on a batch, its samples are scored one at a time, as only some may
        be at fault.
        """
        try:
            return self._within_time(images, prompts)
        except RewardError as error:
            # without a cause, the reward itself says so
            if error.passing or error.__cause__ is None or len(prompts) == 1:
                raise
            return together(list(self._one_at_a_time(images, prompts, error)))

    def _one_at_a_time(
        self, images: Tensor, prompts: Sequence[Prompt], of_the_batch: RewardError
    ) -> Iterator[Judgement]:
        """Yields a judgement of each sample, and raises the batch's error if too many fail."""
        failures = 0
        for i, prompt in enumerate(prompts):
            try:
                yield self._within_time(images[i : i + 1], [prompt])
            except RewardError as error:
                self.failure = error
                failures += not error.passing
                if failures > self.most_failures:
                    raise of_the_batch from of_the_batch.__cause__
                status: Status = "timeout" if error.passing else error.status
                nothing = torch.full((1,), torch.nan)
                yield Judgement(nothing, notes={REASON: [str(error)]}, statuses=[status])

    def _within_time(self, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        seconds = self.timeout_seconds
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


def image_hashes(images: Tensor) -> Tensor:
    """(B,) float64: 48 bits of the SHA-256 of each sample, which a double holds exactly: of an
    image's 8-bit pixels, of other samples in steps of 1/255. images: finite.
    """
    digests = [hashlib.sha256(each).digest()[:6] for each in sample_bytes(images)]
    return torch.tensor([int.from_bytes(digest, "big") for digest in digests], dtype=torch.float64)
