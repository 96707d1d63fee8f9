"""The divergence of a policy from the pretrained model, along its own trajectories."""

import torch
from torch import Tensor

from rediffuse.maths.gaussian import Gaussian
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.types import Rollout


@torch.no_grad()
def kl_to_pretrained(policy: DiffusionPolicy, rollout: Rollout, size: int, world: World) -> Tensor:
    """Estimates KL(policy || pretrained) of whole trajectories, from the policy's own samples.

    It is the sum over random steps and latent elements of each step's KL at the sampled states. The
    policy's means are those that sampling computed, so only the pretrained network is evaluated.

    Args:
        policy: The policy.
        rollout: Samples of the policy, whose trajectories hold their means.
        size: The number of rows, each a sample at a step, in one forward pass.
        world: Provides the worker threads.

    Returns:
        Shape (B,), in nats, on the CPU.
    """
    way, means = rollout.trajectory, rollout.trajectory.means
    assert means is not None
    conditioning = policy.denoiser.encode(rollout.prompts)

    @torch.no_grad()
    def kl(rows: Tensor) -> Tensor:
        world.stop_here_if_asked()
        sample, k = rows.unbind(1)
        seen = {name: each[sample.to(each.device)] for name, each in conditioning.items()}
        state = way.states(sample, way.steps[k]).to(world.device)
        law = policy.act(state, way.steps[k], seen)
        return Gaussian(means[sample, k].to(world.device), law.std).kl(law).cpu()

    num_samples, num_steps = means.shape[:2]
    rows = torch.cartesian_prod(torch.arange(num_samples), torch.arange(num_steps))
    with policy.using("start"):
        each = torch.cat(list(world.map(kl, rows.split(size))))
    return each.view(num_samples, num_steps).sum(1) * way.latents[0].numel()
