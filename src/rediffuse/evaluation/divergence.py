"""The divergence of a policy from the pretrained model, along its own trajectories."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rediffuse.maths.gaussian import Gaussian
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.types import Rollout


def kl_to_pretrained(
    policy: DiffusionPolicy, rollout: Rollout, rows: Sequence[int], size: int, world: World
) -> Tensor:
    """Estimates KL(policy || pretrained) of whole trajectories, from the policy's own samples.

    It is the sum over random steps and latent elements of each step's KL at the sampled states.

    Args:
        policy: The policy.
        rollout: Samples of the policy with their trajectories.
        rows: The positions of the samples to measure.
        size: The number of samples in one forward pass.
        world: Provides the worker threads.

    Returns:
        Shape (len(rows),), in nats, on the CPU.
    """
    way = rollout.trajectory

    @torch.no_grad()
    def laws(chosen: Sequence[int]) -> list[Gaussian]:
        conditioning = policy.denoiser.encode([rollout.prompts[i] for i in chosen])
        samples = torch.tensor(chosen)
        found = []
        for step in way.steps.tolist():
            world.stop_here_if_asked()
            number = torch.full((len(chosen),), step)
            state = way.states(samples, number).to(world.device)
            found.append(policy.act(state, number, conditioning))
        return found

    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    own = list(world.map(laws, parts))
    with policy.using("start"):
        pretrained = list(world.map(laws, parts))
    each = [
        torch.stack([p.kl(q) for p, q in zip(*pair, strict=True)]).sum(0)
        for pair in zip(own, pretrained, strict=True)
    ]
    return torch.cat(each).cpu() * way.path[0, 0].numel()
