"""One list of rewards, and its two short forms."""

import time

import pytest
import tiny

from rediffuse.cli.flags import flags
from rediffuse.config.merge import merge, read_entries
from rediffuse.config.recipes import config_from, read_recipe, resolved
from rediffuse.config.rewards import key_of, term_names, title, use_of
from rediffuse.config.schema import from_mapping, from_yaml, to_yaml
from rediffuse.errors import ConfigError
from rediffuse.lookup import trust

LISTED = [{"name": "vqa"}, {"name": "text_penalty", "weight": 0.5}, {"name": "clip_score", "weight": 0},
          {"name": "aesthetic", "weight": 0, "share": 0.25}]  # fmt: skip
SHORT = {"reward": {"name": "jpeg_compressibility", "quality": 50}, "evaluation": {"held_out": ["redness"]}}  # fmt: skip


def entries(*layers):
    merged = {}
    for layer in layers:
        merged = merge(merged, layer)
    return merged["rewards"]


def test_the_short_forms_are_entries_of_the_list():
    assert entries(SHORT) == [
        {"name": "jpeg_compressibility", "quality": 50},
        {"name": "redness", "weight": 0},
    ]
    assert from_mapping(SHORT) == from_mapping({"rewards": entries(SHORT)})


def test_names_alone_are_entries_too():
    assert entries({"rewards": ["vqa", {"name": "redness"}]}) == [
        {"name": "vqa"},
        {"name": "redness"},
    ]
    assert entries({"rewards": "vqa"}) == [{"name": "vqa"}]


def test_a_reward_over_others_replaces_what_is_trained_on_and_keeps_what_is_watched():
    assert entries({"rewards": LISTED}, {"reward": {"name": "redness"}}) == [
        {"name": "redness"},
        *LISTED[2:],
    ]


def test_options_of_the_reward_change_it_and_another_name_drops_its_options():
    assert entries(SHORT, {"reward": {"quality": 7}})[0] == {
        "name": "jpeg_compressibility",
        "quality": 7,
    }
    assert entries(SHORT, {"reward": {"name": "jpeg_incompressibility"}})[0] == {
        "name": "jpeg_incompressibility"
    }


def test_options_of_the_reward_need_to_know_which_one_is_meant():
    with pytest.raises(
        ConfigError, match=r"reward\.quality: 2 rewards are trained on.*rewards\.0\.quality"
    ):
        entries({"rewards": LISTED}, {"reward": {"quality": 7}})


def test_held_out_rewards_replace_those_that_only_score_evaluations():
    assert entries({"rewards": LISTED}, {"evaluation": {"held_out": "redness"}}) == [
        LISTED[0], LISTED[1], LISTED[3], {"name": "redness", "weight": 0},
    ]  # fmt: skip
    assert entries(SHORT, {"evaluation": {"held_out": []}}) == entries(SHORT)[:1]


def test_a_list_replaces_the_list():
    assert entries(SHORT, {"rewards": LISTED}) == LISTED


def test_an_entry_is_changed_by_its_number():
    assert entries({"rewards": LISTED}, {"rewards": {"1": {"weight": 2}}})[1]["weight"] == 2
    given = flags(
        ["--rewards.1.weight", "2", "--rewards.0.server", "http://[::1]:1/v1"], {"rewards": LISTED}
    )
    changed = entries({"rewards": LISTED}, given)
    assert changed[:2] == [
        {"name": "vqa", "server": "http://[::1]:1/v1"},
        {"name": "text_penalty", "weight": 2},
    ]
    assert changed[2:] == LISTED[2:]


@pytest.mark.parametrize(
    "other", [{"reward": {"name": "redness"}}, {"evaluation": {"held_out": ["redness"]}}]
)
def test_a_list_and_a_short_form_in_one_file_contradict_each_other(other):
    with pytest.raises(ConfigError, match="rewards: lists all rewards of the run"):
        from_mapping({"rewards": LISTED, **other})
    assert entries({"rewards": LISTED}, other)  # the control: one over the other does not


def test_a_held_out_reward_has_no_weight():
    with pytest.raises(ConfigError, match=r"evaluation\.held_out\.0\.weight: 2 given"):
        from_mapping({"evaluation": {"held_out": [{"name": "redness", "weight": 2}]}})


def test_the_default_reward_is_trained_on_where_only_others_are_held_out():
    config = from_mapping({"evaluation": {"held_out": ["redness"]}})
    assert config.rewards == [{"name": "jpeg_incompressibility"}, {"name": "redness", "weight": 0}]


def test_a_configuration_reads_back_as_it_was_written(tmp_path):
    config = from_mapping({"rewards": LISTED})
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert from_yaml(tmp_path / "run.yaml") == config


def test_a_configuration_of_an_earlier_version_reads_as_the_same_run(tmp_path):
    """Which had `reward` and `evaluation.held_out` alone."""
    (tmp_path / "old.yaml").write_text(
        "reward: {name: jpeg_compressibility, quality: 50}\nevaluation: {held_out: [{name: redness}]}\n"
    )
    assert from_yaml(tmp_path / "old.yaml") == from_mapping(SHORT)


def test_flags_change_the_rewards_of_a_recipe():
    recipe = read_recipe("demo/incompressibility")
    judge = {"name": "emoji_judge", "judge": "held_out", "weight": 0}
    assert resolved(recipe, flags(["--reward", "redness"], recipe)).rewards == [
        {"name": "redness"},
        judge,
    ]
    assert resolved(recipe, flags(["--reward.quality", "50"], recipe)).rewards == [
        {"name": "jpeg_incompressibility", "quality": 50}, judge,
    ]  # fmt: skip
    listed = flags(["--rewards", "[{name: vqa}, {name: text_penalty, weight: 0.5}]"], recipe)
    assert resolved(recipe, listed).rewards == LISTED[:2]


def test_the_keys_that_entries_are_reported_under():
    short = entries(SHORT, {"evaluation": {"held_out": ["redness", "vqa"]}})
    assert [key_of(short, i) for i in range(3)] == [
        "reward",
        "evaluation.held_out.0",
        "evaluation.held_out.1",
    ]
    assert [key_of(LISTED, i) for i in range(4)] == [
        "rewards.0",
        "rewards.1",
        "evaluation.held_out.0",
        "rewards.3",
    ]


def test_uses_names_and_the_title():
    uses = [use_of(entry) for entry in LISTED]
    assert [use.scored_share for use in uses] == [1.0, 1.0, 0.0, 0.25]
    assert [use.is_held_out for use in uses] == [False, False, True, True]
    copy = {"name": "mine.py:vqa", "weight": 0, "share": 1, "copy": "cropped"}
    assert not use_of(copy).is_held_out
    assert term_names([*LISTED, {"name": "mine.py:vqa"}, copy])[4:] == ["vqa_2", "vqa_cropped"]
    held_out = {"name": "vqa", "weight": 0}
    assert term_names([LISTED[0], held_out, held_out]) == ["vqa", "vqa", "vqa_2"]
    assert term_names([{**held_out, "share": 1}, held_out]) == ["vqa", "vqa_2"]
    assert title(LISTED) == "vqa + 0.5 text_penalty"
    assert (
        title([{"name": "a", "weight": -1}, {"name": "b", "weight": -2}, {"name": "c"}])
        == "-a - 2 b + c"
    )


@pytest.mark.parametrize(
    "damaged", [{"rewards": 3}, {"rewards": [[]]}, {"rewards": [{"name": "a", "weight": "x"}]}]
)
def test_a_damaged_configuration_has_no_entries(damaged):
    assert read_entries(damaged) == []
    assert read_entries({"reward": {"name": "a"}}) == [{"name": "a"}]  # the control


def test_a_run_of_the_short_form_writes_the_list(tmp_path):
    from rediffuse import train
    from rediffuse.runs.folder import existing

    train(tiny.config(epochs=1), tmp_path / "run")
    assert existing(tmp_path / "run").config().rewards == [{"name": "redness", "weight": 1.0}]


def test_another_name_for_an_entry_keeps_how_it_is_used():
    given = flags(
        ["--rewards.3.name", "redness", "--rewards.1.name", "clip_score"], {"rewards": LISTED}
    )
    changed = entries({"rewards": LISTED}, given)
    assert changed[3] == {"name": "redness", "weight": 0, "share": 0.25}
    assert changed[1] == {"name": "clip_score", "weight": 0.5}


def test_the_default_reward_is_trained_on_through_every_door():
    held_out = {"evaluation": {"held_out": "redness"}}
    for config in (from_mapping(held_out), config_from(held_out, {}), resolved({}, held_out)):
        assert [entry["name"] for entry in config.rewards] == ["jpeg_incompressibility", "redness"]
    with pytest.raises(ConfigError, match="none is trained on"):
        config_from({"rewards": []}, {})


def test_a_weight_that_is_text_is_the_number_that_it_says():
    """YAML reads 1e-3 as text."""
    config = from_mapping(
        {
            "rewards": [
                "redness",
                {"name": "vqa", "weight": "1e-3"},
                {"name": "clip_score", "weight": "0"},
            ]
        }
    )
    assert [entry.get("weight") for entry in config.rewards] == [None, 0.001, 0.0]
    assert config.goal == "redness + 0.001 vqa"


def test_an_evaluation_that_is_no_mapping_is_refused_by_its_key():
    with pytest.raises(ConfigError, match="evaluation: "):
        resolved({"evaluation": {"held_out": "redness"}}, {"evaluation": 3})


def test_one_entry_without_a_list():
    assert entries({"rewards": {"name": "redness"}}) == [{"name": "redness"}]
    assert config_from({"rewards": {"name": "redness"}}, {}).rewards == [{"name": "redness"}]


def test_settings_for_an_algorithm_may_say_rewards_in_another_form_than_those_below():
    base = {
        "rewards": LISTED,
        "with_algorithm": {"rwr": {"rewards": ["vqa", "redness"], "epochs": 3}},
    }
    for said in ({"reward": {"name": "clip_score"}}, {"rewards": ["clip_score"]}):
        merged = merge(base, {"with_algorithm": {"rwr": {**said, "seed": 1}}})
        config = resolved(
            {**merged, "algorithm": {"name": "ddpo_is"}}, {"algorithm": {"name": "rwr"}}
        )
        assert config.rewards[0] == {"name": "clip_score"} and (config.epochs, config.seed) == (
            3,
            1,
        )


def test_a_list_and_a_change_of_one_entry_cannot_both_be_typed():
    with pytest.raises(ConfigError, match="--rewards: lists all rewards"):
        flags(["--rewards", "[redness]", "--rewards.0.weight", "2"], {"rewards": LISTED})


def test_options_of_a_reward_that_is_named_by_number_are_read_as_its_own():
    typed = ["--rewards.0.name", "alignment", "--rewards.0.question", "true"]
    assert flags(typed, {"rewards": LISTED})["rewards"]["0"]["question"] == "true"


def test_no_held_out_rewards_may_be_written_as_nothing(tmp_path):
    (tmp_path / "mine.yaml").write_text("reward: redness\nevaluation: {held_out: }\n")
    assert resolved(read_recipe(str(tmp_path / "mine.yaml")), {}).rewards == [{"name": "redness"}]


@pytest.mark.parametrize("hostile", [{"9" * 5000: {}}, {"²": {}}, {"-1": {}}])
def test_numbers_that_nobody_has_are_refused(hostile):
    with pytest.raises(ConfigError, match="no such reward"):
        entries({"rewards": LISTED}, {"rewards": hostile})
    assert read_entries({"rewards": hostile}) == []


def test_thousands_of_rewards_of_one_name_are_named_at_once():
    began = time.perf_counter()
    assert term_names([{"name": "redness"}] * 20_000)[-1] == "redness_20000"
    assert time.perf_counter() - began < 2


def test_a_held_out_reward_typed_in_parts_needs_no_permission():
    typed = {"evaluation": {"held_out": {"name": "mine.py:f"}}}
    config = resolved(read_recipe("demo/incompressibility"), typed)
    trust.refuse("a.yaml", config, typed)
    with pytest.raises(ConfigError, match="--trust-code"):  # the control
        trust.refuse("a.yaml", config, {})
