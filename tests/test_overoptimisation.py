import random

import pytest

from rediffuse.verdict.overoptimisation import Followed, course, least_errors, shift, to_lose

PICTURES = 16


def metrics(rewards, std=0.3):
    return [
        {
            "epoch": i,
            "reward_mean": mean,
            "reward_std": std,
            "reward_queries": 90 * (i + 1),
            "masked_rewards": 0,
        }
        for i, mean in enumerate(rewards)
    ]


def looks(means, *, noise=0.05, other=-7.0, seed=0):
    """A look an epoch; pictures differ, and each wobbles by its own noise."""
    rows, chance = [], random.Random(seed)
    for epoch, mean in enumerate(means):
        values = [mean + 0.1 * (i % 4 - 1.5) + chance.gauss(0, noise) for i in range(PICTURES)]
        entry = {"mean": sum(values) / PICTURES, "values": values, "parts": {}}
        rows.append({"epoch": epoch, "held_out": {"judge": entry}, "statistics": {}})
    rows[0]["held_out"]["judge"]["of_other_prompts"] = other
    return rows


def relative(num_epochs):
    """Of a reward that is normalised over each epoch, and clipped."""
    return [
        row | {"relative_reward": 1.0}
        for row in metrics([0.01 * (-1) ** i for i in range(num_epochs)])
    ]


RISING = [2.8 + 0.1 * i for i in range(10)]


def test_the_mark_is_at_the_first_look_where_the_held_out_reward_has_fallen_while_the_trained_one_rose():
    finding = course(metrics(RISING), looks([0, 0, 0, 0, -0.1, -0.2, -0.6, -3, -5, -6, -6]))
    assert finding.fall.epoch == 6
    assert finding.fall.share == pytest.approx(0.6 / 7, abs=0.01)
    assert finding.best == 5


@pytest.mark.parametrize(
    "means",
    [
        [0.0] * 11,  # nothing happens
        [0.1 * i for i in range(11)],  # both rise
        [0, -0.02, -0.04, -0.06, -0.08, -0.1, -0.12, -0.14, -0.16, -0.18, -0.2],  # sure, but little
    ],
)
def test_a_healthy_run_is_not_marked(means):
    finding = course(metrics(RISING), looks(means))
    assert finding.fall is None
    assert finding.best == 10


def test_a_fall_within_the_noise_is_none():
    assert course(metrics(RISING), looks([0] * 10 + [-0.7])).fall is not None
    assert course(metrics(RISING), looks([0] * 10 + [-0.7], noise=2.0)).fall is None


@pytest.mark.parametrize(("num_looks", "noise"), [(12, 0.5), (100, 0.2)])
def test_noise_alone_seldom_marks_a_run(num_looks, noise):
    rising = metrics([2.8 + 0.01 * i for i in range(num_looks)])
    marked = [
        course(rising, looks([0.0] * num_looks, noise=noise, seed=seed)).fall is not None
        for seed in range(40)
    ]
    assert sum(marked) <= 1


def test_where_the_trained_reward_falls_too_it_is_not_over_optimisation():
    falling = [2.8 - 0.1 * i for i in range(10)]
    assert course(metrics(falling), looks([0] * 5 + [-3] * 6)).fall is None


def test_a_fall_counts_from_the_best_look_and_not_from_the_first():
    finding = course(metrics(RISING), looks([0, 1, 2, 3, 4, 5, 5, 5, 4, 3, 2]))
    assert finding.fall.since in (5, 6, 7)
    assert finding.fall.epoch in (8, 9)


def test_of_a_reward_that_ignores_the_prompt_the_pretrained_spread_is_the_measure():
    first = {"values": [1.0, 2.0, 3.0], "of_other_prompts": 2.0}
    assert to_lose(first) == pytest.approx(0.25 * 1.0 / 0.08)
    assert to_lose({**first, "of_other_prompts": -98.0}) == pytest.approx(100)
    assert to_lose({"values": [1.0, 2.0, 3.0]}) == pytest.approx(3.125)


def test_of_a_relative_reward_the_held_out_one_alone_decides_and_the_best_is_the_last_before():
    gone = course(relative(10), looks([0] * 5 + [-3] * 6))
    assert (gone.fall.epoch, gone.best) == (5, 4)
    assert course(relative(10), looks([0.0] * 11)).best == 10


def test_a_reward_that_was_the_same_for_all_first_pictures_can_fall_too():
    """Text that no picture held, say."""
    rows = looks([0.0] * 11, noise=0.0, other=None)
    for row in rows:
        written = [-2.0 if row["epoch"] > 6 and i % 4 else 0.0 for i in range(PICTURES)]
        row["held_out"]["judge"] |= {"values": written, "mean": sum(written) / PICTURES}
    assert course(metrics(RISING), rows).fall.epoch == 7


def test_more_looks_and_more_rewards_ask_for_more_errors():
    asked = [least_errors(*each) for each in ((2, 1, 12), (20, 1, 12), (20, 3, 12), (20, 3, 48))]
    assert asked[0] < asked[1] < asked[2] > asked[3]


def test_pictures_of_one_prompt_count_as_one():
    before, after = [0.0] * 6, [-1.0, -1.2, -0.8, -3.0, -3.1, -2.9]
    alone, by_prompt = shift(before, after), shift(before, after, 3)
    assert (alone.n, by_prompt.n) == (6, 2)
    assert alone.mean == pytest.approx(by_prompt.mean) == -2
    assert by_prompt.error == pytest.approx(1.0)
    assert alone.error < 0.5
    assert shift(before, after, 6) == alone


def test_the_best_is_chosen_among_the_checkpoints_that_are_there():
    rows = looks([0.0] * 11)
    assert course(metrics(RISING), rows, checkpoints=[3, 4]).best == 4
    assert course(metrics(RISING), rows, checkpoints=[]).best is None
    wavering = metrics([2.8, 3, 3.5, 3, 3, 3, 3, 3, 3, 3])
    assert course(wavering, rows).best == 2  # whose samples epoch 2 drew


def test_pictures_without_a_reward_are_left_out_of_the_difference():
    moved = shift([1.0, 2.0, None, 4.0], [2.0, 2.0, 9.0, None])
    assert (moved.mean, moved.n) == (0.5, 2)
    assert moved.error == pytest.approx(0.5)
    assert shift([None], [1.0]).n == 0


def test_a_reward_that_gave_nothing_marks_nothing():
    rows = looks([0.0] * 11)
    for row in rows[4:]:
        row["held_out"]["judge"] |= {"mean": None, "values": [None] * PICTURES}
    assert course(metrics(RISING), rows).fall is None


def test_the_rule_is_the_same_along_the_run_as_at_its_end():
    """What was marked when it happened is what a replay of the whole run marks."""
    rows, means = metrics(RISING), looks([0, 0, 0, 0, -0.1, -0.2, -0.6, -3, -5, -6, -6])
    marks = [course(rows[:epoch], means[: epoch + 1]).fall for epoch in range(1, 11)]
    assert {mark.epoch for mark in marks if mark} == {6}
    assert marks[4] is None and marks[5] is not None


def test_a_run_that_is_followed_comes_to_what_its_whole_log_says():
    """Evaluation by evaluation, with a fall in some and none in others."""
    fell = 0
    for seed in range(12):
        means = [0.0] * 6 + [-0.6 * step * (seed % 3) for step in range(5)]
        rows, made = metrics(RISING), looks(means, noise=0.5, seed=seed)
        followed = Followed()
        for number, look in enumerate(made):
            followed.looks.append(look)
            assert followed.course() == course(rows[:number], made[: number + 1])
            followed.metrics.extend(rows[number : number + 1])
        fell += followed.course().fall is not None
    assert 0 < fell < 12
