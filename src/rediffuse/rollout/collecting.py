"""Rollouts: samples in batches, each denoised, decoded and checked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from rediffuse.faults import Check, magnitude, traced
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.memory import RowLimits
from rediffuse.processes.world import World
from rediffuse.rollout.denoising import Draws, denoise, precision_of
from rediffuse.types import (
    Batch,
    CleanSamples,
    EncodedSamples,
    FirstUpdate,
    Merges,
    PreparesPrompts,
    Rollout,
    Trajectory,
    Transitions,
    TransitionsWithMeans,
)


@dataclass(frozen=True)
class Also:
    """Samples that a callback wants beside those that are trained on.

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
    limits: RowLimits,
    world: World,
    keep: type[Batch] = CleanSamples,
    others: Sequence[Also] = (),
    first: FirstUpdate | None = None,
) -> Iterator[Rollout]:
    """Samples the draws in batches, using the worker threads of `world`.

    Args:
        policy: The policy to sample from.
        draws: The samples to generate.
        limits: How many samples are denoised together, and how many rows a pass takes.
        world: Provides the worker threads; sampling stops if it receives a stop request.
        keep: The batch type that the algorithm trains on; see `sampled`.
        others: Samples to draw after them, without a pause, which their receivers are given. They
            have their own batches, so that they do not change a bit of the draws.
        first: The first update, whose gradients are computed while sampling.

    Yields:
        One rollout of `draws` for each batch, in order, as soon as it is done.
    """

    def one(batch: tuple[Draws, type[Batch]]) -> Rollout:
        return sampled(policy, *batch, world.stop_here_if_asked, limits, first)

    size = limits.sampling.rows
    own = [(batch, keep) for batch in draws.batches(size)]
    parts = [(each, batch) for each in others for batch in each.draws.batches(size)]
    denoiser = policy.denoiser
    if isinstance(denoiser, PreparesPrompts):
        every = [draws, *(each.draws for each in others)]
        denoiser.prepare([prompt for each in every for prompt in each.prompts])
    with denoiser.merged() if isinstance(denoiser, Merges) else nullcontext():
        rollouts = world.map(one, [*own, *((batch, each.keep) for each, batch in parts)])
        yield from islice(rollouts, len(own))
        for (each, _), rollout in zip(parts, rollouts, strict=True):
            each.receive(rollout)


@torch.no_grad()
def sampled(
    policy: DiffusionPolicy,
    draws: Draws,
    keep: type[Batch] = CleanSamples,
    at_each_step: Callable[[], None] = lambda: None,
    limits: RowLimits | None = None,
    first: FirstUpdate | None = None,
) -> Rollout:
    """Samples all draws, which advance step by step together.

    Args:
        policy: The policy to sample from.
        draws: The samples to generate.
        keep: The batch type that the algorithm trains on. `Transitions` keeps the states that it
            needs of the trajectory, `TransitionsWithMeans` also the means of its random steps,
            `EncodedSamples` the latent distribution of the decoded samples, `CleanSamples` the
            final latents.
        at_each_step: Called before each denoising step; may raise to stop sampling.
        limits: How many rows a pass takes; None: all.
        first: The first update, whose gradients are computed while sampling.
    """
    limits = limits or RowLimits.of(lambda _: len(draws.indices))
    keep_means = issubclass(keep, TransitionsWithMeans)
    trajectory = denoise(policy, draws, at_each_step, limits, first, keep_means=keep_means)
    samples = _decoded(policy, draws, trajectory.latents, limits)
    checks: list[Check] = [("decoder", precision_of(policy), magnitude(samples))]
    kept = arrived(trajectory.latents)
    if issubclass(keep, EncodedSamples):
        mean, std = policy.denoiser.encode_samples(samples)
        checks.append(
            ("encoder", precision_of(policy), torch.maximum(magnitude(mean), magnitude(std)))
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


def _decoded(policy: DiffusionPolicy, draws: Draws, latents: Tensor, limits: RowLimits) -> Tensor:
    """Returns the samples (B, *S) of latents on the host, on the device of the model."""

    def decode(part: Tensor) -> Tensor:
        prompts = [draws.prompts[row] for row in part.tolist()]
        return policy.denoiser.decode(latents[part].to(policy.denoiser.device), prompts)

    return torch.cat(list(limits.decoding.over(decode, torch.arange(len(latents)))))


def _of_log_probs(trajectory: Trajectory, num_steps: int) -> list[Check]:
    columns = zip(trajectory.steps.tolist(), trajectory.log_probs.unbind(1), strict=True)
    return [
        ("log-probability", f"at step {step + 1} of {num_steps}", magnitude(each))
        for step, each in columns
    ]


def arrived(latents: Tensor, spread: Tensor | None = None) -> Trajectory:
    """Returns a trajectory that holds final latents (B, *L) only, with their standard deviation if
    given.
    """
    return Trajectory(
        torch.empty(0, dtype=torch.int64), latents[:, None], torch.empty(len(latents), 0), spread
    )
