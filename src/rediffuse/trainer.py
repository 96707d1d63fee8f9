"""The training loop: draw prompts, sample, score, compute advantages, update.

Start reading here; everything else that a run does is a callback.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rediffuse.callbacks.protocol import Callback, Epoch, RunState
from rediffuse.maths import noise
from rediffuse.rollout import Draws, collect
from rediffuse.runs.rows import MetricsRow, UpdateColumns
from rediffuse.scoring.scores import Scores
from rediffuse.types import FirstUpdate, Prompt, Rollout


@dataclass
class Run(RunState):
    """A training run whose models are loaded, created by `rediffuse.begin` and `rediffuse.reopen`.
    `train` runs all epochs, `step` runs one; callbacks are called in order at each stage of it.
    """

    callbacks: Sequence[Callback] = ()

    def train(self) -> list[MetricsRow]:
        """Runs the remaining epochs, or until a callback stops the run; returns a row of metrics
        for each.
        """
        rows = []
        while epoch := self.step():
            rows.append(epoch.metrics)
        return rows

    def step(self) -> Epoch | None:
        """Runs one epoch and returns its results, or None if the run is over. An epoch that is
        interrupted or whose rewards fail raises the error and is not counted.
        """
        if self.is_over():
            return None
        self.also.clear()
        for callback in self.callbacks:
            callback.epoch_begins(self)
        if self.is_over():
            return None
        prompts, began = self.draw(), time.perf_counter()
        first = self.learner.first_update(self.epoch)
        rollout, own = self.world.together(lambda: self.sample(prompts, first))
        scores = self.scorer.gather(own, rollout)
        sampled = time.perf_counter()
        for callback in self.callbacks:
            callback.scored(self, rollout, scores)
        resumed = time.perf_counter()
        advantages = self.learner.advantages(scores.rewards, prompts)
        self.world.heart.beat("learning")
        learned = self.learner.update(rollout, advantages, self.epoch, first)
        done = time.perf_counter()
        for callback in self.callbacks:
            callback.updated(self, learned)
        metrics = self._row(scores, learned, sampled - began, done - resumed)
        epoch = Epoch(self.epoch, prompts, rollout, scores, advantages, metrics)
        self.epoch += 1
        for callback in self.callbacks:
            callback.epoch_ends(self, epoch)
        return epoch

    def draw(self) -> list[Prompt]:
        """Draws the prompts of the epoch for all processes, each repeated `images_per_prompt`
        times.
        """
        generator = noise.generator(self.config.seed, self.epoch, "prompts")
        drawn = self.prompts.draw(self.config.prompts_per_epoch, generator)
        return [prompt for prompt in drawn for _ in range(self.config.images_per_prompt)]

    def sample(
        self, prompts: Sequence[Prompt], first: FirstUpdate | None = None
    ) -> tuple[Rollout, Scores]:
        """Samples and scores this process's share of the epoch. Rewards of one batch are computed
        while the next one is sampled.

        Args:
            prompts: The prompts of the epoch.
            first: The first update, whose gradients are computed while sampling.
        """
        self.world.heart.beat("sampling")
        mine, learner = self.world.share(len(prompts)), self.learner
        draws = Draws(mine, [prompts[i] for i in mine], (self.config.seed, self.epoch, "noise"))
        keep, limits = learner.algorithm.trains_on, learner.limits
        batches = collect(learner.policy, draws, limits, self.world, keep, self.also, first)
        return self.scorer.score(self._announced(batches), self.epoch, len(mine))

    def _row(
        self, scores: Scores, learned: UpdateColumns, sampling: float, training: float
    ) -> MetricsRow:
        """Builds the epoch's row of metrics; times are in seconds."""
        num_samples = len(scores.rewards)
        return {
            "epoch": self.epoch,
            **self.scorer.summary(scores),
            "reward_queries": (self.epoch + 1) * num_samples,
            **learned,
            "seconds_sampling": sampling,
            "seconds_training": training,
            "images_per_second": num_samples / (sampling + training),
            "peak_memory_bytes": self.world.peak_memory_bytes(),
        }

    def _announced(self, batches: Iterable[Rollout]) -> Iterator[Rollout]:
        for batch in batches:
            for callback in self.callbacks:
                callback.sampled(self, batch)
            yield batch
