"""The order in which updates go through an epoch's samples, and the steps that they train on.

Both are known before the epoch's samples are drawn.
"""

import torch
from torch import Tensor

from rediffuse.maths import noise


def minibatches(
    seed: int, epoch: int, number: int, valid: Tensor, num_updates: int
) -> tuple[Tensor, ...]:
    """Returns the samples of each update of a pass, in random order.

    Args:
        seed: The run's seed.
        epoch: The epoch.
        number: The number of the random order within the epoch.
        valid: Shape (num_samples,): the samples of all processes that are trained on. The others
            are left out of an order that does not depend on them.
        num_updates: The number of updates in the pass.
    """
    generator = noise.generator(seed, epoch, "order", number)
    order = torch.randperm(len(valid), generator=generator)
    return order[valid[order]].tensor_split(num_updates)


def chosen_steps(
    seed: int, key: tuple[int, int], sample: int, num_chosen: int, num_steps: int
) -> Tensor:
    """Returns the steps that a sample is trained on in a pass, drawn from its own key.

    Args:
        seed: The run's seed.
        key: The epoch and the number of the pass.
        sample: The number of the sample in the epoch.
        num_chosen: How many steps to choose.
        num_steps: From how many.

    Returns:
        Shape (num_chosen,), in [0, num_steps).
    """
    generator = noise.generator(seed, *key, "steps", sample)
    return torch.randperm(num_steps, generator=generator)[:num_chosen]
