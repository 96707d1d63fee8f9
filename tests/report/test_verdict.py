"""Each rule on each side of it, from made-up files of a run."""

import json
from dataclasses import asdict

import pytest
import tiny

from rediffuse.runs import log
from rediffuse.runs.creation import create
from rediffuse.verdict import verdict
from rediffuse.verdict.evidence import Evidence

EPOCHS = 12


@pytest.fixture
def judged(tmp_path):
    """What the files of a run say; each row is a healthy one but for what is given."""

    def judge(rewards=None, *, each=None, last=None, looks=None, **config):
        run = create(tmp_path / "run", tiny.config(**config))
        rewards = [2.8 + 0.1 * i for i in range(EPOCHS)] if rewards is None else rewards
        log.append(run.metrics, [row(i, mean, each or {}) for i, mean in enumerate(rewards)])
        if last:
            rows = log.read(run.metrics)
            rows[-1] |= last
            run.metrics.write_text("".join(json.dumps(each) + "\n" for each in rows))
        log.append(run.monitor, healthy_looks() if looks is None else looks)
        found = verdict.write(run)
        assert json.loads(run.verdict.read_text())["headline"] == found.headline
        return found

    return judge


def row(epoch, mean, more):
    usual = {
        "max_ratio_drift": 0.01, "epoch": epoch, "reward_mean": mean, "reward_std": 0.3, "reward_queries": 90 * (epoch + 1), "masked_rewards": 0,
        "trained_samples": 90, "loss": 0.0, "approx_kl": 1e-3, "ratio_drift": 0.0, "grad_norm": 0.1, "skipped_updates": 0,
    }  # fmt: skip
    return {**usual, **more}


def look(epoch, value=0.0, parts=None, **statistics):
    values = [value + 0.01 * (i % 3) for i in range(16)]
    entry = {
        "mean": sum(values) / 16,
        "values": values,
        "parts": parts or {},
        "of_other_prompts": -7.0,
    }
    usual = {
        "brightness": 0.6,
        "saturation": 0.3,
        "edge_density": 0.2,
        "colour_entropy": 3.2,
        "diversity": 1.0,
        "kl": 40.0,
    }
    return {
        "epoch": epoch,
        "held_out": {"judge": entry},
        "statistics": {**usual, "near_identical": 0.0, **statistics},
    }


def healthy_looks():
    return [look(0), look(6), look(12)]


def said(found, rule):
    return next((each for each in found.findings if each.rule == rule), None)


def test_a_healthy_run_is_good_and_has_nothing_to_mend(judged):
    found = judged([2.8 + 0.1 * min(i, 7) for i in range(EPOCHS)])
    assert found.level == "good"
    assert found.headline == "The reward rose, and the held-out reward did not change."
    assert found.suggestion == "No action is needed."
    assert (found.overoptimised_at, found.best) == (None, 12)
    assert not {
        "overoptimised",
        "collapse",
        "clipping",
        "precision",
        "skipped",
        "masked",
        "spread",
        "text",
        "watched_rewards",
    } & {each.rule for each in found.findings}


@pytest.mark.parametrize(
    ("rewards", "level", "headline"),
    [
        ([2.8 + 0.1 * i for i in range(EPOCHS)], "good", "The reward rose"),
        ([2.8 - 0.1 * i for i in range(EPOCHS)], "bad", "The reward fell."),
        ([2.8 + 0.05 * (-1) ** i for i in range(EPOCHS)], "warning", "The reward did not move."),
        ([2.8 + 0.1 * i for i in range(3)], "unknown", "The run is too short to judge"),
        (
            [2.8 + 0.02 * i + 0.07 * (-1) ** i for i in range(EPOCHS)],
            "unknown",
            "The reward may be rising",
        ),
    ],
)
def test_learning_is_the_slope_against_its_own_noise(judged, rewards, level, headline):
    found = judged(rewards)
    assert said(found, "learning").level == level
    assert found.headline.startswith(headline)


def test_a_slope_within_the_noise_of_few_samples_is_none(judged):
    found = judged([2.8 + 0.01 * i for i in range(EPOCHS)], each={"reward_std": 3.0})
    assert said(found, "learning").level == "warning"


@pytest.mark.parametrize(("weight", "level"), [(1, "good"), (-1, "warning")])
def test_a_normalised_reward_is_told_by_its_terms_and_their_weights(weight, level):
    terms = [{"name": "mine.py:a", "weight": weight}, {"name": "b"}]
    config = asdict(tiny.config()) | {"rewards": terms}
    more = [
        {"relative_reward": 1.0, "reward_a": 1 + 0.1 * i, "reward_b": 2 + 0.1 * (-1) ** i}
        for i in range(EPOCHS)
    ]
    rows = [row(i, 0.01 * (-1) ** i, each) for i, each in enumerate(more)]
    learning = verdict.conclude(Evidence(config, rows, healthy_looks())).findings[0]
    assert learning.level == level
    assert "a rises, b is flat" in learning.text


def test_a_collapse_is_half_of_what_was_won_lost_again(judged):
    up = [2.0 + 0.2 * i for i in range(8)]
    found = judged([*up, 3.0, 2.4, 2.2, 2.1])
    assert said(found, "collapse").numbers["peak"] == 7
    assert found.headline == "The reward rose and then collapsed."
    assert "stop at epoch 7" in found.suggestion


def test_a_dip_is_no_collapse(judged):
    up = [2.0 + 0.2 * i for i in range(8)]
    assert said(judged([*up, 3.3, 3.2, 3.2, 3.3]), "collapse") is None


@pytest.mark.parametrize(
    ("value", "level"), [(0.9, "good"), (0.1, "note"), (-0.1, "note"), (-0.9, "bad")]
)
def test_the_held_out_reward_has_moved_only_by_a_share_of_what_it_could_lose(judged, value, level):
    found = judged(looks=[look(0), look(12, value)])
    assert said(found, "held_out").level == level


def test_without_a_held_out_reward_the_verdict_asks_for_one(judged):
    looks = [{**each, "held_out": {}} for each in healthy_looks()]
    found = judged([2.8 + 0.1 * min(i, 7) for i in range(EPOCHS)], looks=looks)
    assert found.level == "unknown"
    assert "no held-out reward shows" in found.headline
    assert "--evaluation.held-out" in found.suggestion


def test_over_optimisation_names_the_epoch_and_the_checkpoint_to_keep(judged):
    found = judged(looks=[look(0), look(4), look(8, -3.0), look(12, -6.0)])
    assert (found.overoptimised_at, found.best, found.level) == (8, 4, "bad")
    assert "over-optimised after 8 epochs" in found.headline and "epoch 4" in found.headline
    assert "--checkpoint best" in found.suggestion


def test_the_worst_of_several_held_out_rewards_is_the_headline(judged):
    def two(epoch, first, second):
        made = look(epoch, first)
        made["held_out"]["other"] = look(epoch, second)["held_out"]["judge"]
        return made

    assert judged(looks=[two(0, 0, 0), two(12, 0.9, 0.9)]).headline.endswith("rose too.")
    evidence = Evidence(
        asdict(tiny.config()),
        [row(i, 2.8, {}) for i in range(EPOCHS)],
        [two(0, 0, 0), two(12, -0.9, 0.9)],
    )
    rising = [row(i, 2.8 + 0.1 * i, {}) for i in range(EPOCHS)]
    found = verdict.conclude(
        Evidence(evidence.config, rising, [two(0, 0, 0), two(2, 1.5, 0), two(12, 0.9, 0.9)])
    )
    assert found.level == "bad" and found.overoptimised_at == 12
    found = verdict.conclude(evidence)
    assert [each.level for each in found.findings if each.rule == "held_out"] == ["bad", "good"]


def test_a_held_out_reward_that_fell_is_no_reason_to_go_on(judged):
    """Fallen since the start, but not as surely as the mark asks for."""
    wavering = look(12, -1.0)
    # 3.2 errors
    wavering["held_out"]["judge"] |= {
        "values": [-1 + 1.21 * (-1) ** i for i in range(16)],
        "mean": -1.0,
    }
    looks = [look(0), *(look(i) for i in range(1, 12)), wavering]
    found = judged(looks=looks)
    assert found.overoptimised_at is None
    assert found.headline == "The reward rose, but a held-out reward fell."
    assert "rediffuse sample RUN --checkpoint 11" in found.suggestion


@pytest.mark.parametrize(
    ("checkpoints", "suggested"),
    [
        (None, "--checkpoint 6"),
        ({4, 6, 8, 12}, "--checkpoint 6"),
        ({4, 12}, "--checkpoint 4"),
        ({8, 12}, "No checkpoint"),
        ({12}, "stop earlier"),
    ],
)
def test_where_pictures_became_alike_a_checkpoint_of_before_is_named_that_is_there(
    checkpoints, suggested
):
    rows = [row(i, 2.8 + 0.1 * i, {}) for i in range(EPOCHS)]
    looks = [
        look(0),
        look(4, diversity=0.8),
        look(6, diversity=0.6),
        look(8, diversity=0.4),
        look(12, diversity=0.1),
    ]
    assert (
        suggested
        in verdict.conclude(
            Evidence(asdict(tiny.config()), rows, looks, checkpoints=checkpoints)
        ).suggestion
    )


def test_over_optimisation_comes_before_a_reward_that_may_be_rising(judged):
    found = judged(
        [2.8 + 0.02 * i + 0.07 * (-1) ** i for i in range(EPOCHS)],
        each={"reward_std": 0.01},
        looks=[look(0), look(12, -6.0)],
    )
    assert found.overoptimised_at == 12 and "after 12 epochs" in found.headline


@pytest.mark.parametrize(
    ("statistics", "level"),
    [
        ({"diversity": 0.6}, "good"),
        ({"diversity": 0.4}, "warning"),
        ({"near_identical": 0.4}, "good"),
        ({"near_identical": 0.6}, "warning"),
    ],
)
def test_diversity_warns_below_half_of_the_pretrained_one(judged, statistics, level):
    found = judged(looks=[look(0), look(12, **statistics)])
    assert said(found, "diversity").level == level
    assert ("more alike" in found.headline) == (level == "warning")


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("edge_density", 0.11, 0.09), ("edge_density", 0.29, 0.31), ("colour_entropy", 2.5, 2.3),
        ("saturation", 0.44, 0.46), ("brightness", 0.45, 0.35),
    ],
)  # fmt: skip
def test_appearance_tells_what_changed_in_all_pictures(judged, name, inside, outside):
    assert said(
        judged(looks=[look(0), look(12, **{name: outside})]), "appearance"
    ).numbers.keys() == {name}
    evidence = Evidence(
        asdict(tiny.config()),
        [row(i, 2.8 + 0.1 * i, {}) for i in range(EPOCHS)],
        [look(0), look(12, **{name: inside})],
    )
    assert not [each for each in verdict.conclude(evidence).findings if each.rule == "appearance"]


def test_clipping_explains_a_flat_reward(judged):
    flat = [2.8 + 0.05 * (-1) ** i for i in range(EPOCHS)]
    found = judged(flat, each={"clip_fraction": 0.97})
    assert "97%" in said(found, "clipping").text
    assert "lower the learning rate" in found.suggestion


def test_some_clipping_is_as_it_should_be(judged):
    assert said(judged(each={"clip_fraction": 0.3}), "clipping") is None


def test_a_policy_that_hardly_moved_wants_a_larger_learning_rate(judged):
    flat = [2.8 + 0.05 * (-1) ** i for i in range(EPOCHS)]
    assert "hardly moved" in judged(flat, looks=[look(0), look(12, kl=0.3)]).suggestion


def test_one_that_moved_wants_more_samples(judged):
    flat = [2.8 + 0.05 * (-1) ** i for i in range(EPOCHS)]
    assert "more samples" in judged(flat, looks=[look(0), look(12, kl=40.0)]).suggestion


@pytest.mark.parametrize(("drift", "warned"), [(0.011, True), (0.009, False)])
def test_the_ratio_may_be_off_by_what_the_algorithm_can_bear(judged, drift, warned):
    found = judged(last={"ratio_drift": drift})
    assert (said(found, "precision") is not None) == warned
    assert ("fp32" in found.suggestion) == warned


@pytest.mark.parametrize(("count", "warned"), [(1, True), (0, False)])
def test_skipped_updates_are_told(judged, count, warned):
    assert (said(judged(last={"skipped_updates": count}), "skipped") is not None) == warned


@pytest.mark.parametrize(("count", "warned"), [(12, True), (9, False)])
def test_masked_rewards_are_told_above_a_hundredth(judged, count, warned):
    found = judged(last={"masked_rewards": count})
    assert (said(found, "masked") is not None) == warned
    assert ("Fix the reward" in found.suggestion) == warned


@pytest.mark.parametrize(("std", "warned"), [(0.01, True), (0.02, False)])
def test_samples_that_are_all_worth_the_same_are_told(judged, std, warned):
    assert (said(judged(last={"reward_std": std}), "spread") is not None) == warned


@pytest.mark.parametrize(("share", "warned"), [(3 / 16, True), (1 / 16, False)])
def test_text_that_appears_in_pictures_is_told(judged, share, warned):
    def wrote(share):
        return {"has_text": [1.0] * round(16 * share) + [0.0] * round(16 * (1 - share))}

    found = judged(looks=[look(0, parts=wrote(0)), look(12, parts=wrote(share))])
    assert (said(found, "text") is not None) == warned


def test_text_that_names_the_prompt_is_an_attack(judged):
    found = judged(each={"reward_names_the_prompt": 0.0}, last={"reward_names_the_prompt": 0.4})
    assert said(found, "text").level == "bad"
    assert "typographic attack" in said(found, "text").text
    assert "text_penalty" in found.suggestion


@pytest.mark.parametrize(
    ("gap", "error", "level"),
    [(0.9, 0.1, "warning"), (0.4, 0.01, "good"), (0.9, 0.5, "note"), (3.0, None, "note")],
)
def test_a_watched_reward_that_stays_behind_is_reported(gap, error, level):
    gaps = {
        "unsure": [{"epoch": 11, "gap": 1.0, "gap_error": 0.9}]
        if level == "warning"
        else [{"epoch": 11, "gap": 0.0, "gap_error": 0.1}],
        "agrees": [{"epoch": 11, "gap": 0.0, "gap_error": 0.1}],
        "judge": [
            {"epoch": 0, "gap": 0.0, "gap_error": 0.1},
            {"epoch": 11, "gap": gap, "gap_error": error},
        ],
    }
    rows = [row(i, 2.8 + 0.1 * i, {}) for i in range(EPOCHS)]
    assert (
        said(
            verdict.conclude(Evidence(asdict(tiny.config()), rows, healthy_looks(), gaps)),
            "watched_rewards",
        ).level
        == level
    )


def test_watched_rewards_are_read_from_the_journal(tmp_path):
    rewards = ["redness", {"name": "mine.py:judge", "weight": 0, "share": 0.5}]
    run = create(tmp_path / "run", tiny.config(rewards=rewards))
    log.append(run.metrics, [row(i, 2.8 + 0.1 * i, {}) for i in range(EPOCHS)])
    log.append(
        run.rewards,
        [
            {"epoch": e, "reward": i % 5 + e, "parts": {"judge": i % 5}}
            for e in (0, 11)
            for i in range(40)
        ],
    )
    assert said(verdict.write(run), "watched_rewards").numbers["gap"] > 5


def test_a_run_that_is_still_rising_may_go_on(judged):
    assert (
        judged(epochs=EPOCHS).suggestion
        == f"It is still rising: rediffuse resume RUN --epochs {2 * EPOCHS}"
    )


def test_a_run_from_before_the_monitor_has_a_verdict_too(judged):
    found = judged(looks=[])
    assert found.best is None
    assert found.headline.startswith("The reward rose, but no held-out reward shows")
