import math

import pytest

from rediffuse.verdict.changes import finite, held_out, paired


def test_paired_by_hand():
    """Differences 1, 3 of the two pictures that have a value at both looks: mean 2, standard error sqrt(2)/sqrt(2)."""
    first, second = paired([(0, [0.0, 1.0, 5.0]), (4, [1.0, 4.0, math.nan])])
    assert (first.difference, first.error, first.n) == (0, 0, 3)
    assert (second.epoch, second.mean, second.difference, second.n) == (4, 2.5, 2, 2)
    assert second.error == pytest.approx(1)


def test_pictures_of_one_prompt_count_as_one():
    _, second = paired([(0, [0.0] * 4), (4, [1.0, 1.0, 3.0, 3.0])], 2)
    assert (second.difference, second.n) == (2, 2)
    assert second.error == pytest.approx(1)


def test_every_judge_and_part_of_one_has_its_own():
    looks = [
        {
            "epoch": 0,
            "held_out": {"a": {"mean": 1, "values": [1, None], "parts": {"right": [0, 1]}}},
        },
        {
            "epoch": 2,
            "held_out": {
                "a": {"mean": 1, "values": [3, 4], "parts": {"right": [1, 1]}},
                "b": {"values": [1]},
            },
        },
        {"epoch": 4, "statistics": {}},
    ]
    found = held_out(looks)
    assert list(found) == [("a", ""), ("a", "right"), ("b", "")]
    assert [change.difference for change in found["a", ""]] == [0, 2]
    assert [change.difference for change in found["a", "right"]] == [0, 0.5]


def test_a_judge_without_a_value_says_nothing():
    assert (
        held_out([{"epoch": 0, "held_out": {"a": {"mean": None, "values": [None]}, "b": {}}}]) == {}
    )


@pytest.mark.parametrize("value", [None, True, "1", [1], math.inf, math.nan])
def test_what_is_no_finite_number(value):
    assert math.isnan(finite(value))
