"""Sampling: turns prompts into samples and the trajectories that lead to them."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rediffuse.faults import Check, magnitude, traced
from rediffuse.maths import noise
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.types import (
    Batch,
    CleanSamples,
    EncodedSamples,
    HasPrecision,
    Prompt,
    Rollout,
    Trajectory,
    Transitions,
    TransitionsWithMeans,
)

Key = tuple[int | str, ...]


@dataclass(frozen=True)
class Draws:
    """The samples to generate.

    Attributes:
        indices: The number of each sample in the epoch.
        prompts: The prompt of each sample.
        key: The random key of the noise; each sample's index is appended to it.
    """

    indices: Sequence[int]
    prompts: Sequence[Prompt]
    key: Key

    def batches(self, size: int) -> list["Draws"]:
        """Splits the draws into parts of at most `size` samples."""
        parts = [slice(i, i + size) for i in range(0, len(self.indices), size)]
        return [Draws(self.indices[part], self.prompts[part], self.key) for part in parts]


@dataclass(frozen=True)
class Also:
    """Samples that a callback wants from an epoch's sampling, beside those that are trained on.

    Attributes:
        draws: The samples to generate.
        receive: Called with parts of them, in order.
        keep: What is kept of their trajectories; see `sampled`.
    """

    draws: Draws
    receive: Callable[[Rollout], None]
    keep: type[Batch] = CleanSamples


def collect(
    policy: DiffusionPolicy,
    draws: Draws,
    micro_batch_size: int,
    world: World,
    keep: type[Batch] = CleanSamples,
    others: Sequence[Also] = (),
) -> Iterator[Rollout]:
    """Samples the draws in micro-batches, using the worker threads of `world`.

    Args:
        policy: The policy to sample from.
        draws: The samples to generate.
        micro_batch_size: How many samples are denoised together.
        world: Provides the worker threads; sampling stops if it receives a stop request.
        keep: The batch type that the algorithm trains on; see `sampled`.
        others: Samples to draw after them without waiting for their last micro-batches. They have
            micro-batches of their own, so that they change no bit of `draws`.

    Yields:
        One rollout of `draws` for each micro-batch, in order, as soon as it is done.
    """

    def one(batch: tuple[Draws, type[Batch]]) -> Rollout:
        return sampled(policy, *batch, world.stop_here_if_asked)

    own = [(batch, keep) for batch in draws.batches(micro_batch_size)]
    parts = [(each, batch) for each in others for batch in each.draws.batches(micro_batch_size)]
    rollouts = world.map(one, [*own, *((batch, each.keep) for each, batch in parts)])
    yield from itertools.islice(rollouts, len(own))
    for (each, _), rollout in zip(parts, rollouts, strict=True):
        each.receive(rollout)


@torch.no_grad()
def sampled(
    policy: DiffusionPolicy,
    draws: Draws,
    keep: type[Batch] = CleanSamples,
    at_each_step: Callable[[], None] = lambda: None,
) -> Rollout:
    """Samples all draws in one batch.

    Args:
        policy: The policy to sample from.
        draws: The samples to generate.
        keep: The batch type that the algorithm trains on. `Transitions` keeps the whole trajectory,
            `TransitionsWithMeans` also the means of its random steps, `EncodedSamples` the latent
            distribution of the decoded samples, `CleanSamples` the final latents.
        at_each_step: Called before each denoising step; may raise to stop sampling.
    """
    keep_means = issubclass(keep, TransitionsWithMeans)
    trajectory = denoise(policy, draws, at_each_step, keep_means=keep_means)
    samples = policy.denoiser.decode(trajectory.latents.to(policy.denoiser.device), draws.prompts)
    checks: list[Check] = [("decoder", _precision(policy), magnitude(samples))]
    kept = arrived(trajectory.latents)
    if issubclass(keep, EncodedSamples):
        mean, std = policy.denoiser.encode_samples(samples)
        checks.append(
            ("encoder", _precision(policy), torch.maximum(magnitude(mean), magnitude(std)))
        )
        kept = arrived(mean.cpu(), std.cpu())
    elif issubclass(keep, Transitions):
        kept = trajectory
        checks = [*_of_log_probs(trajectory, len(policy.sampler.noisy)), *checks]
    faults = [
        before or after for before, after in zip(trajectory.faults, traced(checks), strict=True)
    ]
    groups = torch.tensor([prompt.group for prompt in draws.prompts])
    way = replace(kept, faults=faults if any(faults) else ())
    return Rollout(draws.prompts, groups, torch.tensor(draws.indices), samples.cpu(), way)


def denoise(
    policy: DiffusionPolicy,
    draws: Draws,
    at_each_step: Callable[[], None] = lambda: None,
    *,
    keep_means: bool = False,
) -> Trajectory:
    """Runs the denoising process without decoding the latents.

    Each sample's noise comes from its own generator, so it does not depend on the batch. The faults
    cover the text encoder, the network and the latents.

    Args:
        policy: The policy to sample from.
        draws: The samples to generate.
        at_each_step: Called before each denoising step; may raise to stop sampling.
        keep_means: Whether the trajectory holds the means of its random steps.
    """
    at_each_step()
    conditioning = policy.denoiser.encode(draws.prompts)
    device = policy.denoiser.device
    generators = [noise.generator(*draws.key, index) for index in draws.indices]

    def fresh() -> Tensor:
        return noise.draw(generators, policy.denoiser.latent_shape).to(device)

    state = fresh()
    path, log_probs, means = [state.cpu()], [], []
    num_steps, precision = len(policy.sampler.noisy), _precision(policy)
    checks: list[Check] = [
        ("text encoder", precision, magnitude(each).to(device))
        for each in conditioning.values()
        if each.is_floating_point()
    ]
    for step, noisy in enumerate(policy.sampler.noisy):
        at_each_step()
        number = torch.full((len(state),), step)
        output = policy.output(state, number, conditioning)
        law = policy.sampler.step(output, state, number)
        state = law.sample(fresh()) if noisy else law.mean
        path.append(state.cpu())
        when = f"at step {step + 1} of {num_steps}"
        checks += [
            ("network", f"{precision} {when}".lstrip(), magnitude(output)),
            ("latents", when, magnitude(state)),
        ]
        if noisy:
            log_probs.append(law.log_prob(state).cpu())
        if noisy and keep_means:
            means.append(law.mean.cpu())
    steps = torch.tensor(policy.sampler.noisy).nonzero().flatten()
    stacked = torch.stack(log_probs, 1) if log_probs else torch.empty(len(state), 0)
    kept = torch.stack(means, 1) if means else None
    return Trajectory(steps, torch.stack(path, 1), stacked, faults=traced(checks), means=kept)


def _of_log_probs(trajectory: Trajectory, num_steps: int) -> list[Check]:
    columns = zip(trajectory.steps.tolist(), trajectory.log_probs.unbind(1), strict=True)
    return [
        ("log-probability", f"at step {step + 1} of {num_steps}", magnitude(each))
        for step, each in columns
    ]


def _precision(policy: DiffusionPolicy) -> str:
    return f"in {policy.denoiser.precision}" if isinstance(policy.denoiser, HasPrecision) else ""


def arrived(latents: Tensor, spread: Tensor | None = None) -> Trajectory:
    """Returns a trajectory that holds final latents (B, *L) only, with their standard deviation if
    given.
    """
    return Trajectory(
        torch.empty(0, dtype=torch.int64), latents[:, None], torch.empty(len(latents), 0), spread
    )
