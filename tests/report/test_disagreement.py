import pytest

from rediffuse.verdict.disagreement import gaps, rank_correlation

WATCHED = {"rewards": [{"name": "mine"}, {"name": "judge", "weight": 0, "share": 0.5}]}
SUM = {"rewards": [{"name": "a"}, {"name": "b", "weight": -2}, *WATCHED["rewards"][1:]]}


def row(epoch, reward, judge, **parts):
    return {"epoch": epoch, "reward": reward, "parts": {"judge": judge, **parts}}


def test_by_hand():
    """First epoch: rewards 0, 2, 4 (mean 2, sd 2), judge 10, 20, 30 (mean 20, sd 10). Then 4, 6 against 20, 20."""
    rows = [row(0, 0, 10), row(0, 2, 20), row(0, 4, 30), row(1, 4, 20), row(1, 6, 20)]
    found = gaps(rows, WATCHED)["judge"]
    assert found[0] == {"epoch": 0, "gap": 0, "gap_error": 0, "correlation": 1, "n": 3}
    # of 1 and 2
    assert found[1]["gap"] == pytest.approx(1.5) and found[1]["gap_error"] == pytest.approx(0.5)
    assert found[1]["correlation"] is None and found[1]["n"] == 2


def test_only_samples_that_both_scored_count():
    rows = [
        row(0, 0, 1),
        row(0, 1, 0),
        row(0, None, 5),
        row(0, 9, None),
        row(0, 9, float("nan")),
        {"epoch": 0, "reward": 9},
    ]
    (found,) = gaps(rows, WATCHED)["judge"]
    assert found["n"] == 2 and found["correlation"] == -1


def test_a_sum_is_compared_by_its_terms_as_they_were_in_the_first_epoch():
    """First epoch: a 0, 2 (mean 1, sd √2), b 0, 2 the other way round; a - 2b is -3/√2, 3/√2: sd 3.

    Then a 3, b -1: 2/√2 + 2·2/√2 = 6/√2, in its sd √2; the judge rose by 1/√2 of its own.
    """
    rows = [row(0, 99, 0, a=0, b=2), row(0, 99, 1, a=2, b=0), row(1, 0, 1, a=3, b=-1)]
    first, last = gaps(rows, SUM)["judge"]
    assert first["gap"] == pytest.approx(0) and last["gap_error"] is None
    assert last["gap"] == pytest.approx((6 / 2**0.5) / 3 - 1 / 2**0.5)


def test_a_term_that_is_constant_at_first_contributes_nothing():
    rows = [row(0, 99, 0, a=0, b=2), row(0, 99, 1, a=2, b=2), row(1, 0, 1, a=2, b=7)]
    assert gaps(rows, SUM)["judge"][1]["gap"] == pytest.approx(0)


def test_a_copy_is_compared_with_the_reward_of_its_name():
    copies = {
        "rewards": [
            {"name": "a"},
            {"name": "b"},
            {"name": "b", "weight": 0, "share": 1, "copy": "cropped"},
        ]
    }

    def told(epoch, b, copy):
        return {"epoch": epoch, "reward": 99, "parts": {"a": epoch, "b": b, "b_cropped": copy}}

    found = gaps([told(0, 0, 0), told(0, 1, 1), told(1, 2, 1)], copies)["b_cropped"]
    assert [each["gap"] for each in found] == pytest.approx([0, 2**0.5])


def test_every_watched_reward_has_its_gaps():
    config = {"rewards": [*WATCHED["rewards"], {"name": "other", "weight": 0, "share": 1}]}
    found = gaps([row(0, 0, 0, other=0), row(0, 1, 1, other=1)], config)
    assert list(found) == ["judge", "other"]


def test_the_journal_of_a_watched_reward_that_does_not_follow(tmp_path):
    """Not that of made-up rows: the names are those that a run writes."""
    import tiny

    from rediffuse import train
    from rediffuse.runs import log
    from rediffuse.runs.folder import RunFolder
    from rediffuse.verdict import verdict

    (tmp_path / "own.py").write_text(
        "def not_red(images, prompts):\n    return -images[:, 0].mean((1, 2))\n"
    )
    rewards = ["redness", {"name": f"{tmp_path}/own.py:not_red", "weight": 0, "share": 1}]
    config = tiny.config(rewards=rewards, epochs=6, learning_rate=3e-2, prompts_per_epoch=16)
    train(config, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert gaps(log.read(run.rewards), {"rewards": rewards})["not_red"][-1]["gap"] > 1
    found = next(each for each in verdict.write(run).findings if each.rule == "watched_rewards")
    assert found.level == "warning" and "not_red" in found.text


def test_without_a_watched_reward_there_is_nothing():
    assert gaps([], WATCHED) == {}
    assert (
        gaps([{"epoch": 0, "reward": 1.0, "parts": {"judge": 1.0}}], {"reward": {"name": "a"}})
        == {}
    )


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    ours, theirs = [1, 5, 5, 2, 9, 9, 9, 0.5], [3, 1, 4, 1, 5, 9, 2, 6]
    assert rank_correlation(ours, theirs) == pytest.approx(stats.spearmanr(ours, theirs).statistic)
    assert rank_correlation([1, 1], [1, 2]) is None
