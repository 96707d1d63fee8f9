import pytest

from rediffuse.verdict.disagreement import gaps, rank_correlation


def row(epoch, reward, second, **parts):
    return {"epoch": epoch, "reward": reward, "parts": {"second_opinion": second, **parts}}


def test_by_hand():
    """First epoch: rewards 0, 2, 4 (mean 2, sd 2), second judge 10, 20, 30 (mean 20, sd 10). Then 4, 6 against 20, 20."""
    found = gaps([row(0, 0, 10), row(0, 2, 20), row(0, 4, 30), row(1, 4, 20), row(1, 6, 20)])
    assert found[0] == {"epoch": 0, "gap": 0, "gap_error": 0, "correlation": 1, "n": 3}
    # of 1 and 2
    assert found[1]["gap"] == pytest.approx(1.5) and found[1]["gap_error"] == pytest.approx(0.5)
    assert found[1]["correlation"] is None and found[1]["n"] == 2


def test_only_samples_that_both_judged_count():
    rows = [
        row(0, 0, 1),
        row(0, 1, 0),
        row(0, None, 5),
        row(0, 9, None),
        row(0, 9, float("nan")),
        {"epoch": 0, "reward": 9},
    ]
    (found,) = gaps(rows)
    assert found["n"] == 2 and found["correlation"] == -1


def test_within_a_sum_the_term_is_compared_and_not_the_sum():
    def told(epoch, first, second):
        return {
            "epoch": epoch,
            "reward": 99,
            "parts": {"mine": first, "mine_second_opinion": second, "other": 5},
        }

    found = gaps([told(0, 0, 0), told(0, 1, 1), told(1, 2, 1)])
    assert [each["gap"] for each in found] == pytest.approx([0, 2**0.5])
    assert found[1]["gap_error"] is None


def test_the_journal_of_a_second_judge_that_does_not_follow(tmp_path):
    """Not that of made-up rows: the names are those that a run writes."""
    import tiny

    from rediffuse import train
    from rediffuse.runs import log
    from rediffuse.runs.folder import RunFolder
    from rediffuse.verdict import verdict

    (tmp_path / "own.py").write_text(
        "def not_red(images, prompts):\n    return -images[:, 0].mean((1, 2))\n"
    )
    judges = [{"name": "redness"}, {"name": f"{tmp_path}/own.py:not_red"}]
    reward = {"name": "second_judge", "rewards": judges, "share": 1.0}
    train(
        tiny.config(reward=reward, epochs=6, learning_rate=3e-2, prompts_per_epoch=16),
        tmp_path / "run",
    )
    run = RunFolder(tmp_path / "run")
    assert gaps(log.read(run.rewards))[-1]["gap"] > 1
    found = next(each for each in verdict.write(run).findings if each.rule == "second_judge")
    assert found.level == "warning"


def test_without_a_second_judge_there_is_nothing():
    assert gaps([]) == gaps([{"epoch": 0, "reward": 1.0, "parts": {"right": 1.0}}]) == []


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    ours, theirs = [1, 5, 5, 2, 9, 9, 9, 0.5], [3, 1, 4, 1, 5, 9, 2, 6]
    assert rank_correlation(ours, theirs) == pytest.approx(stats.spearmanr(ours, theirs).statistic)
    assert rank_correlation([1, 1], [1, 2]) is None
