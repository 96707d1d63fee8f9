import pytest

from rediffuse.report.disagreement import gaps, rank_correlation


def row(epoch, reward, second, **parts):
    return {"epoch": epoch, "reward": reward, "parts": {"second_judge": second, **parts}}


def test_by_hand():
    """First epoch: rewards 0, 2, 4 (mean 2, sd 2), second judge 10, 20, 30 (mean 20, sd 10). Then 4, 6 against 20, 20."""
    found = gaps([row(0, 0, 10), row(0, 2, 20), row(0, 4, 30), row(1, 4, 20), row(1, 6, 20)], "redness")
    assert found[0] == {"epoch": 0, "gap": 0, "gap_error": 0, "correlation": 1, "n": 3}
    assert found[1]["gap"] == pytest.approx(1.5) and found[1]["gap_error"] == pytest.approx(0.5)  # of 1 and 2
    assert found[1]["correlation"] is None and found[1]["n"] == 2


def test_only_samples_that_both_judged_count():
    rows = [row(0, 0, 1), row(0, 1, 0), row(0, None, 5), row(0, 9, None), row(0, 9, float("nan")), {"epoch": 0, "reward": 9}]
    (found,) = gaps(rows, "redness")
    assert found["n"] == 2 and found["correlation"] == -1


def test_of_a_reward_of_several_parts_the_main_one_is_compared():
    rows = [row(0, 99, 0, mine=0), row(0, 99, 1, mine=1), row(1, 99, 1, mine=2)]
    assert [found["gap"] for found in gaps(rows, "mine")] == pytest.approx([0, 2**0.5])
    assert gaps(rows, "mine")[1]["gap_error"] is None
    assert gaps(rows, "redness") == []  # the reward itself says one thing


def test_without_a_second_judge_there_is_nothing():
    assert gaps([], "redness") == gaps([{"epoch": 0, "reward": 1.0, "parts": {"right": 1.0}}], "redness") == []


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    ours, theirs = [1, 5, 5, 2, 9, 9, 9, 0.5], [3, 1, 4, 1, 5, 9, 2, 6]
    assert rank_correlation(ours, theirs) == pytest.approx(stats.spearmanr(ours, theirs).statistic)
    assert rank_correlation([1, 1], [1, 2]) is None
