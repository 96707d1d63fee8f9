import pytest
import torch

from rediffuse.maths.bootstrap import interval


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_of_many_normal_values_it_is_the_interval_of_the_normal_law():
    values = torch.randn(400, generator=generator(), dtype=torch.float64)
    low, high = interval(values, generator(1))
    error = values.std().item() / 20
    assert low == pytest.approx(values.mean().item() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean().item() + 1.96 * error, abs=0.1 * error)


def test_it_holds_the_truth_nineteen_times_of_twenty():
    held = 0
    for seed in range(200):
        low, high = interval(
            torch.rand(40, generator=generator(seed)), generator(seed + 1000), draws=500
        )
        held += low <= 0.5 <= high
    # 190 ± 4 standard deviations, less what a percentile interval of forty values lacks
    assert 178 <= held <= 198


def test_equal_values_leave_no_doubt():
    assert interval(torch.full((5,), 2.5), generator()) == (2.5, 2.5)


def test_equal_seeds_give_equal_intervals():
    values = torch.rand(20, generator=generator())
    assert interval(values, generator(3)) == interval(values, generator(3))
    assert interval(values, generator(3)) != interval(values, generator(4))
