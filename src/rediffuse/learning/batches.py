"""Training batches: rows chosen from a rollout, and the tensors of a micro-batch of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.learning.order import chosen_steps
from rediffuse.maths import noise
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.memory import even_parts
from rediffuse.processes.world import World
from rediffuse.types import Algorithm, CleanSamples, Conditioning, Rollout, Transitions


@dataclass(frozen=True)
class Rows:
    """N training rows: each is a sample of this process with one of its random steps, or one of its
    noising times if clean samples are trained on.

    Attributes:
        sample: Shape (N,), positions in the rollout.
        k: Shape (N,), positions among the random steps, or numbers of the noising times.
        key: The random key of the time and noise of clean samples.
    """

    sample: Tensor
    k: Tensor
    key: tuple[int | str, ...] = ()

    def split(self, size: int) -> list["Rows"]:
        """Splits the rows into parts of at most `size` and of even length; no parts if there are
        no rows.

        A process has no rows of a minibatch if it drew none of its samples.
        """
        return [self.only(part) for part in even_parts(torch.arange(len(self.sample)), size)]

    def only(self, rows: Tensor) -> "Rows":
        """Returns some of the rows, by their positions or by a mask."""
        return Rows(self.sample[rows], self.k[rows], self.key)


@dataclass(frozen=True)
class Batches(ABC):
    """The training batches of one epoch.

    Attributes:
        policy: The policy that is trained.
        algorithm: Defines the loss and how many rows each sample has.
        config: The run's configuration.
        world: This process's device and worker threads.
        rollout: The samples that this process drew.
        advantages: Shape (B,), of the samples in `rollout`.
    """

    policy: DiffusionPolicy
    algorithm: Algorithm
    config: Config
    world: World
    rollout: Rollout
    advantages: Tensor

    @property
    @abstractmethod
    def choices(self) -> tuple[int, int]:
        """How many rows each sample gives, and from how many they are chosen."""

    @abstractmethod
    def batch(self, rows: Rows, reference: Tensor | None) -> Transitions | CleanSamples:
        """Returns the tensors of some rows.

        Args:
            rows: The rows.
            reference: The result of `references` for these rows.
        """

    def references(self, parts: Sequence[Rows]) -> Sequence[Tensor | None]:
        """Returns the means (N, *L) of each part under the algorithm's reference weights, or None
        for each part if it has none.
        """
        return [None] * len(parts)

    def rows(self, samples: Tensor, key: tuple[int, int]) -> Rows:
        """Chooses the training rows of a minibatch.

        Args:
            samples: Numbers of the minibatch's samples in the epoch, of all processes.
            key: The epoch and the inner epoch; each sample's steps are drawn from its own key.

        Returns:
            The rows of those samples that this process drew.
        """
        position = {index: place for place, index in enumerate(self.rollout.indices.tolist())}
        num_chosen, num_choices = self.choices
        sample, chosen = [], []
        for index in samples.tolist():
            if index in position:
                sample.append(torch.full((num_chosen,), position[index]))
                chosen.append(chosen_steps(self.config.seed, key, index, num_chosen, num_choices))
        empty = torch.empty(0, dtype=torch.int64)
        return Rows(
            torch.cat([empty, *sample]),
            torch.cat([empty, *chosen]),
            (self.config.seed, *key, "noised"),
        )

    def checkable(self, samples: Tensor, key: tuple[int, int]) -> Rows:
        """Returns rows whose loss can always be computed; the arguments are those of `rows`."""
        return self.rows(samples, key)

    def conditioning(self, rows: Rows) -> Conditioning:
        """Encodes the prompts of the rows.

        They are encoded again for each batch, because storing the result for every sample would
        take more memory than the latents.
        """
        with torch.no_grad():
            return self.policy.denoiser.encode(
                [self.rollout.prompts[i] for i in rows.sample.tolist()]
            )


class TransitionBatches(Batches):
    """Batches of single denoising steps, for policy gradients."""

    @property
    def choices(self) -> tuple[int, int]:
        asked = self.algorithm.passes.rows_per_sample
        num_random = len(self.rollout.trajectory.steps)
        return min(asked or num_random, num_random), num_random

    def checkable(self, samples: Tensor, key: tuple[int, int]) -> Rows:
        """Returns all random steps whose states are kept."""
        way, chosen = self.rollout.trajectory, self.rows(samples, key).sample.unique()
        kept = torch.tensor([way.has_states(step) for step in way.steps.tolist()])
        k = kept.nonzero().flatten()
        return Rows(chosen.repeat_interleave(len(k)), k.repeat(len(chosen)))

    def references(self, parts: Sequence[Rows]) -> Sequence[Tensor | None]:
        """Computes all parts in one exchange of the weights, since the worker threads share the
        network.
        """
        weights = self.algorithm.passes.reference
        if weights is None:
            return [None] * len(parts)

        @torch.no_grad()
        def means(part: Rows) -> Tensor:
            batch = self.batch(part, None)
            return self.policy.act(batch.state, batch.step, batch.conditioning).mean.cpu()

        with self.policy.using(weights):
            return list(self.world.map(means, parts))

    def batch(self, rows: Rows, reference: Tensor | None) -> Transitions:
        trajectory, device = self.rollout.trajectory, self.world.device
        step = trajectory.steps[rows.k]
        return Transitions(
            state=trajectory.states(rows.sample, step).to(device),
            next_state=trajectory.states(rows.sample, step + 1).to(device),
            step=step,
            log_prob=trajectory.log_probs[rows.sample, rows.k].to(device),
            advantage=self.advantages[rows.sample].float().to(device),
            conditioning=self.conditioning(rows),
            reference_mean=None if reference is None else reference.to(device),
        )


class CleanBatches(Batches):
    """Batches of clean samples to which noise is added again, for regression."""

    @property
    def choices(self) -> tuple[int, int]:
        times = self.algorithm.passes.rows_per_sample or 1
        return times, times

    def batch(self, rows: Rows, reference: Tensor | None) -> CleanSamples:
        """Returns the tensors of some rows; each row's time and noise come from its own
        generator.
        """
        trajectory, device = self.rollout.trajectory, self.world.device
        schedule, shape = self.policy.denoiser.schedule, self.policy.denoiser.latent_shape
        keys = zip(self.rollout.indices[rows.sample].tolist(), rows.k.tolist(), strict=True)
        generators = [noise.generator(*rows.key, index, k) for index, k in keys]
        time = torch.cat([schedule.training_time(each) for each in generators])
        added, latents = noise.draw(generators, shape), trajectory.latents[rows.sample]
        if trajectory.spread is not None:
            latents = latents + trajectory.spread[rows.sample] * noise.draw(generators, shape)
        return CleanSamples(
            latents=latents.to(device),
            time=time,
            noise=added.to(device),
            weight=self.advantages[rows.sample].float().to(device),
            conditioning=self.conditioning(rows),
        )


def kind_for(algorithm: Algorithm) -> type[Batches]:
    """Returns the class of batches that the algorithm trains on."""
    return TransitionBatches if issubclass(algorithm.trains_on, Transitions) else CleanBatches
