"""The gradients of an epoch's first update, computed while its samples are drawn.

Until that update the policy is the one that samples. The gradient of a policy-gradient loss is then
a sum over samples of their scores, ∇log p of each trained step (Williams 1992; Black et al. 2023,
eq. 4), times a factor that the rewards decide. Sampling sums the scores of each sample, so that the
update needs no second pass through the network.
"""

import torch

from rediffuse.config.schema import Config
from rediffuse.learning import order
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.types import Algorithm, FirstUpdate, HasSampleGradients, HasScores


def first_update(
    policy: DiffusionPolicy,
    algorithm: Algorithm,
    config: Config,
    world: World,
    epoch: int,
    scale: float,
) -> FirstUpdate | None:
    """Returns the first update of an epoch, with the samples that it has if no reward is masked;
    None if the algorithm's gradient is not one of scores, or the model cannot compute them.

    Args:
        policy: The policy.
        algorithm: The algorithm.
        config: The run's configuration.
        world: Says which samples this process draws.
        epoch: The number of the epoch.
        scale: The scale of the loss.
    """
    if not isinstance(algorithm, HasScores) or not algorithm.is_of_scores:
        return None
    denoiser = policy.denoiser
    if not isinstance(denoiser, HasSampleGradients) or not denoiser.has_sample_gradients:
        return None
    every = torch.ones(config.num_samples, dtype=torch.bool)
    minibatch, *later = order.minibatches(config.seed, epoch, 0, every, config.updates_per_epoch)
    mine = [sample for sample in minibatch.tolist() if sample in world.share(config.num_samples)]
    random = torch.tensor(policy.sampler.noisy).nonzero().flatten()
    passes = algorithm.passes
    num_chosen = min(passes.rows_per_sample or len(random), len(random))
    steps = torch.zeros(len(mine), len(policy.sampler.noisy), dtype=torch.bool)
    for row, sample in enumerate(mine):
        chosen = order.chosen_steps(config.seed, (epoch, 0), sample, num_chosen, len(random))
        steps[row, random[chosen]] = True
    weights = algorithm.step_weights(policy, torch.arange(len(policy.sampler.noisy)))
    return FirstUpdate(
        (config.seed, epoch, "noise"),
        {sample: row for row, sample in enumerate(mine)},
        steps,
        weights.expand(len(policy.sampler.noisy)),
        {name: torch.zeros(len(mine), *each.shape) for name, each in denoiser.parameters().items()},
        scale,
        is_only=not later and passes.inner_epochs == 1,
    )
