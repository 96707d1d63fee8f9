import torch

from rediffuse.maths.advantages import (
    PromptStatistics,
    centered_by_group,
    standardized,
    standardized_by_group,
)

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def test_batch_by_hand():
    # Mean 3, variance (4 + 0 + 4) / 3.
    want = torch.tensor([-2.0, 0.0, 2.0]) / (8 / 3) ** 0.5
    torch.testing.assert_close(standardized(torch.tensor([1.0, 3.0, 5.0])), want, **CLOSE)


def test_groups_by_hand():
    got = standardized_by_group(
        torch.tensor([1.0, 3.0, 5.0, 5.0, 9.0]), torch.tensor([0, 0, 7, 7, 2])
    )
    torch.testing.assert_close(got, torch.tensor([-1.0, 1.0, 0.0, 0.0, 0.0]), **CLOSE)


def test_groups_in_units_of_the_batch_by_hand():
    got = centered_by_group(torch.tensor([1.0, 3.0, 5.0, 5.0, 11.0]), torch.tensor([0, 0, 7, 7, 2]))
    # Mean 5, variance (16 + 4 + 0 + 0 + 36) / 5; the lone sample is its own mean.
    torch.testing.assert_close(got, torch.tensor([-1.0, 1.0, 0.0, 0.0, 0.0]) / 11.2**0.5, **CLOSE)


def test_prompt_with_too_few_rewards_is_measured_against_the_batch():
    statistics = PromptStatistics(buffer_size=4, min_count=3)
    rewards = torch.tensor([0.0, 2.0, 10.0])
    got = statistics.standardized(rewards, torch.tensor([1, 1, 2]))
    torch.testing.assert_close(got, standardized(rewards), **CLOSE)


def test_prompt_with_enough_rewards_is_measured_against_its_own_by_hand():
    statistics = PromptStatistics(buffer_size=4, min_count=3)
    statistics.standardized(torch.tensor([0.0, 2.0, 10.0]), torch.tensor([1, 1, 2]))
    got = statistics.standardized(torch.tensor([4.0, 99.0]), torch.tensor([1, 2]))
    # Prompt 1 has seen 0, 2, 4: mean 2, std sqrt(8/3). Prompt 2 has two rewards: the batch 4, 99 stands in.
    torch.testing.assert_close(got, torch.tensor([2 / (8 / 3) ** 0.5, 1.0]), **CLOSE)


def test_buffer_forgets_the_oldest():
    statistics = PromptStatistics(buffer_size=2, min_count=2)
    for value in (100.0, 1.0, 3.0):
        got = statistics.standardized(torch.tensor([value]), torch.tensor([5]))
    torch.testing.assert_close(got, torch.tensor([1.0]), **CLOSE)


def test_state_survives_json_exactly():
    import json

    statistics = PromptStatistics(buffer_size=8, min_count=2)
    groups = torch.tensor([2**62 + 1, 7, 7])
    statistics.standardized(torch.tensor([0.1, 0.2, 1 / 3], dtype=torch.float64), groups)
    other = PromptStatistics(buffer_size=8, min_count=2)
    other.load(json.loads(json.dumps(statistics.state())))
    more = torch.rand(3, dtype=torch.float64)
    assert torch.equal(statistics.standardized(more, groups), other.standardized(more, groups))


def test_where_rewards_hardly_differ_the_batch_is_standardised_and_equal_ones_teach_nothing():
    """The published 1e-8 leaves a deviation of 1e-6 as it is: 1e-6 would halve it."""
    near = torch.tensor([0.0, 2e-6], dtype=torch.float64)
    torch.testing.assert_close(
        standardized(near), torch.tensor([-1.0, 1.0], dtype=torch.float64), atol=0.02, rtol=0
    )
    assert not standardized(torch.full((7,), 0.1)).any()
