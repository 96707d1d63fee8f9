import math

import numpy as np
import pytest
import torch

from rediffuse.maths.weights import (
    above_percentile,
    above_percentile_by_group,
    above_percentile_so_far,
    softmax_weights,
    softmax_weights_by_group,
)


def test_softmax_weights_by_hand():
    """exp(0.5 * [0, 2 ln 2, 2 ln 3]) = 1, 2, 3, of sum 6, times 3."""
    rewards = torch.tensor([0.0, 2 * math.log(2), 2 * math.log(3)])
    torch.testing.assert_close(softmax_weights(rewards, 0.5), torch.tensor([0.5, 1.0, 1.5]))


def test_a_constant_added_to_all_rewards_changes_nothing_and_large_ones_do_not_overflow():
    rewards = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(softmax_weights(rewards + 1e6, 0.2), softmax_weights(rewards, 0.2))
    assert softmax_weights(rewards, 0.2).mean().item() == pytest.approx(1)


def test_each_group_has_mean_one():
    rewards = torch.tensor([0.0, 10.0, math.log(3), 10.0])
    groups = torch.tensor([7, 3, 7, 3])
    torch.testing.assert_close(
        softmax_weights_by_group(rewards, groups, 1.0), torch.tensor([0.5, 1.0, 1.5, 1.0])
    )


@pytest.mark.parametrize("percentile", [0, 12.5, 50, 90, 99])
def test_percentiles_are_numpys(percentile):
    rewards = torch.randn(33, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want = rewards.numpy() >= np.percentile(rewards.numpy(), percentile)
    assert above_percentile(rewards, percentile).tolist() == want.tolist()


def test_of_32_images_the_90th_percentile_keeps_4():
    """The figure of the paper's code, whose batches are of one prompt."""
    rewards = torch.arange(32.0)
    assert above_percentile(rewards, 90).nonzero().flatten().tolist() == [28, 29, 30, 31]


def test_each_group_keeps_its_own_best():
    rewards = torch.tensor([1.0, 100.0, 2.0, 200.0, 3.0, 0.0])
    groups = torch.tensor([0, 1, 0, 1, 0, 2])
    assert above_percentile_by_group(rewards, groups, 90).tolist() == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]


def test_the_percentile_may_be_of_what_came_before():
    """The medians are 3 of the first group, and 4 of 1, 5, 4, 4."""
    rewards, groups = torch.tensor([1.0, 5.0, 4.0, 4.0]), torch.tensor([0, 0, 1, 1])
    assert above_percentile_so_far(rewards, groups, 50).tolist() == [False, True, True, True]
