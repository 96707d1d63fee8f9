"""Prompts in; images, and the way to them, out."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.maths import noise
from rediffuse.policy import DiffusionPolicy
from rediffuse.types import LearnsFrom, Prompt, Rollout, Trajectory
from rediffuse.world import World


@dataclass(frozen=True)
class Draws:
    """Which samples to make: their numbers, their prompts, and the key of their noise."""

    indices: Sequence[int]
    prompts: Sequence[Prompt]
    key: tuple[int | str, ...]

    def batches(self, size: int) -> list["Draws"]:
        return [
            Draws(self.indices[i : i + size], self.prompts[i : i + size], self.key) for i in range(0, len(self.indices), size)
        ]


def collect(
    policy: DiffusionPolicy, draws: Draws, micro_batch_size: int, world: World, keep: LearnsFrom = "latents"
) -> Iterator[Rollout]:
    """One rollout per micro-batch, in order, each as soon as it is done. keep: what of the way is remembered."""

    @torch.no_grad()
    def one(batch: Draws) -> Rollout:
        world.stop_here_if_asked()
        trajectory = denoise(policy, batch)
        images = policy.denoiser.decode(trajectory.latents.to(world.device))
        if keep == "latents":
            trajectory = arrived(trajectory.latents)
        elif keep == "images":
            fresh = noise.draw([noise.generator(*batch.key, "encode", i) for i in batch.indices], policy.denoiser.latent_shape)
            trajectory = arrived(policy.denoiser.encode_images(images, fresh.to(images.device)).cpu())
        groups = torch.tensor([group_of(prompt) for prompt in batch.prompts])
        return Rollout(batch.prompts, groups, torch.tensor(batch.indices), images.cpu(), trajectory)

    return world.map(one, draws.batches(micro_batch_size))


def denoise(policy: DiffusionPolicy, draws: Draws) -> Trajectory:
    """Each sample's noise comes from a generator of its own."""
    conditioning = policy.denoiser.encode(draws.prompts)
    device = next(iter(conditioning.values())).device
    generators = [noise.generator(*draws.key, index) for index in draws.indices]

    def fresh() -> Tensor:
        return noise.draw(generators, policy.denoiser.latent_shape).to(device)

    state = fresh()
    path, log_probs = [state.cpu()], []
    for step, noisy in enumerate(policy.sampler.noisy):
        law = policy.act(state, torch.full((len(state),), step), conditioning)
        state = law.sample(fresh()) if noisy else law.mean
        path.append(state.cpu())
        if noisy:
            log_probs.append(law.log_prob(state).cpu())
    steps = torch.tensor(policy.sampler.noisy).nonzero().flatten()
    stacked = torch.stack(log_probs, 1) if log_probs else torch.empty(len(state), 0)
    return Trajectory(steps, torch.stack(path, 1), stacked)


def arrived(latents: Tensor) -> Trajectory:
    """A trajectory of which only the end is remembered."""
    return Trajectory(torch.empty(0, dtype=torch.int64), latents[:, None], torch.empty(len(latents), 0))


def joined(parts: Iterable[Rollout], num_samples: int) -> Rollout:
    """The rollouts of several micro-batches, of `num_samples` in all, as one; none lies in memory twice."""
    prompts: list[Prompt] = []
    images, groups, indices, log_probs = [], [], [], []
    steps, path = torch.empty(0, dtype=torch.int64), torch.empty(0)
    for part in parts:
        way, begin = part.trajectory, len(prompts)
        if not prompts:
            steps, path = way.steps, torch.empty(num_samples, *way.path.shape[1:])
        path[begin : begin + len(part.prompts)] = way.path
        prompts.extend(part.prompts)
        images.append(part.images)
        groups.append(part.groups)
        indices.append(part.indices)
        log_probs.append(way.log_probs)
    trajectory = Trajectory(steps, path, torch.cat(log_probs))
    return Rollout(prompts, torch.cat(groups), torch.cat(indices), torch.cat(images), trajectory)


def group_of(prompt: Prompt) -> int:
    """A number that depends on the prompt's text alone, so that it means the same in every epoch and process."""
    return int.from_bytes(hashlib.blake2b(prompt.text.encode(), digest_size=8).digest(), "big") >> 1
