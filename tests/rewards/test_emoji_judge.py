"""The judges that ship inside: on pictures of the embedded model, without a network."""

import re

import numpy as np
import pytest
import tiny
import torch

from rediffuse.errors import ConfigError, RewardError
from rediffuse.lookup.build import build
from rediffuse.policy import DiffusionPolicy
from rediffuse.prompts._animals import NAMES
from rediffuse.rewards import _emoji
from rediffuse.rewards._emoji import Judge
from rediffuse.rewards.emoji_judge import asked_for, named
from rediffuse.rollout import Draws, denoise
from rediffuse.samplers.ddim import DDIM
from rediffuse.scoring.judging import judged
from rediffuse.start import train
from rediffuse.types import HasFeatures, Prompt

KINDS = ("trained", "held_out")


@pytest.fixture(scope="module")
def judges():
    return {kind: Judge.load(kind, "cpu") for kind in KINDS}


@pytest.fixture(scope="module")
def animals():
    """(45, 3, 64, 64): a sample of each animal, as the embedded model draws it before any fine-tuning."""
    denoiser = build("model", {"name": "emoji"}).load("cpu", 0)
    policy = DiffusionPolicy(
        denoiser, DDIM(num_steps=8, spacing="trailing").bind(denoiser.schedule)
    )
    prompts = [Prompt(f"a {name}") for name in NAMES]
    with torch.no_grad():
        return denoiser.decode(denoise(policy, Draws(range(45), prompts, (0, "judges"))).latents)


def test_both_fit_in_three_megabytes():
    for kind in KINDS:
        assert sum(path.stat().st_size for path in (_emoji.WEIGHTS / kind).iterdir()) < 1_500_000


def test_they_are_two_networks_that_tell_the_same_things_apart(judges):
    assert type(judges["trained"].network) is not type(judges["held_out"].network)
    assert judges["trained"].labels == judges["held_out"].labels
    assert list(judges["trained"].labels) == ["animal", "count", "activity"]
    assert set(NAMES) < set(judges["trained"].labels["animal"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_s_animals_are_named(kind, judges, animals):
    prompts = [Prompt(f"a {name}") for name in NAMES]
    right = named(judges[kind], judges[kind](animals), prompts)
    assert right[:, 0].mean() > 0.95 and right[:, 1:].isnan().all()
    # the control: another animal's picture
    others = named(judges[kind], judges[kind](animals.flip(0)), prompts)
    assert others[:, 0].mean() < 0.05


def test_noise_is_no_animal_that_was_asked_for(judges):
    noise = torch.rand(45, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prompts = [Prompt(f"a {name}") for name in NAMES]
    assert named(judges["trained"], judges["trained"](noise), prompts)[:, 0].mean() < 0.1


@pytest.mark.parametrize(
    ("text", "animal", "count", "activity"),
    [
        ("a cat", "cat", None, None),
        ("an ant riding a bike", "ant", None, "riding a bike"),
        ("six wolves", "wolf", "6", None),
        ("two mice", "mouse", "2", None),
        ("eight sheep", "sheep", "8", None),
        ("a goose washing the dishes", "goose", None, "washing the dishes"),
    ],
)
def test_what_a_prompt_asks_for(text, animal, count, activity, judges):
    labels = judges["trained"].labels
    (asked,) = asked_for(judges["trained"], [Prompt(text)]).tolist()
    found = [labels[name][i] if i >= 0 else None for name, i in zip(labels, asked, strict=True)]
    assert found == [animal, count, activity]


@pytest.mark.parametrize(
    ("prompts", "asks"),
    [
        ({"name": "animals_activities", "alone": True}, "animal"),
        ({"name": "counting"}, "count"),
        ({"name": "animals"}, "animal"),
    ],
)
def test_every_prompt_of_the_sets_is_understood(prompts, asks, judges):
    drawn = build("prompts", {**prompts, "balanced": True}).draw(
        500, torch.Generator().manual_seed(0)
    )
    asked = asked_for(judges["trained"], drawn)
    assert (asked[:, list(judges["trained"].labels).index(asks)] >= 0).all()


def test_the_reward_is_the_log_probability_of_all_that_was_asked_for_and_ends_at_the_floor(
    judges, animals
):
    prompts = [Prompt("a cat riding a bike"), Prompt("a zebra"), Prompt("two dogs")]
    images = animals[[NAMES.index("cat"), NAMES.index("zebra"), NAMES.index("dog")]]
    got = judged(tiny.loaded({"name": "emoji_judge"}), images, prompts)
    log_probs, labels = judges["trained"](images), judges["trained"].labels
    wanted = [
        log_probs["animal"][0, labels["animal"].index("cat")]
        + log_probs["activity"][0, labels["activity"].index("riding a bike")],
        log_probs["animal"][1, labels["animal"].index("zebra")],
        log_probs["animal"][2, labels["animal"].index("dog")]
        + log_probs["count"][2, labels["count"].index("2")],
    ]
    torch.testing.assert_close(got.values, torch.stack(wanted).double())
    assert got.parts["right"].tolist() == got.parts["held_out_right"].tolist() == [0.0, 1.0, 0.0]
    assert got.notes["answer"] == ["a cat", "a zebra", "a dog"]
    floored = judged(tiny.loaded({"name": "emoji_judge", "floor": -0.5}), images, prompts).values
    assert (
        floored[0] == pytest.approx(-0.5 + max(-0.5, log_probs["animal"][0, 0].item()))
        and floored.min() >= -1
    )
    matched = judged(tiny.loaded({"name": "emoji_judge", "score": "match"}), images, prompts).values
    assert matched.tolist() == [0.5, 1.0, 0.5]


def test_the_held_out_judge_can_give_the_value(judges, animals):
    """Alone: nothing else is loaded."""
    images = animals[[NAMES.index("cat"), NAMES.index("zebra")]]
    prompts = [Prompt("a cat riding a bike"), Prompt("a zebra")]
    reward = tiny.loaded({"name": "emoji_judge", "judge": "held_out"})
    got, usual = (
        judged(reward, images, prompts),
        judged(tiny.loaded({"name": "emoji_judge"}), images, prompts),
    )
    log_probs, labels = judges["held_out"](images), judges["held_out"].labels
    animal = log_probs["animal"][
        [0, 1], [labels["animal"].index("cat"), labels["animal"].index("zebra")]
    ]
    riding = log_probs["activity"][0, labels["activity"].index("riding a bike")].clamp(min=-7)
    torch.testing.assert_close(got.values, torch.stack([animal[0] + riding, animal[1]]).double())
    assert list(got.parts) == ["right"] and torch.equal(
        got.parts["right"], usual.parts["held_out_right"]
    )
    assert reward.model.judge is reward.model.held_out and not torch.equal(got.values, usual.values)
    with pytest.raises(ConfigError, match=r"reward\.judge: .*'held_out'"):
        tiny.loaded({"name": "emoji_judge", "judge": "third"})


@pytest.mark.parametrize("kind", KINDS)
def test_features_see_the_ground_and_not_where_things_stand(kind, judges, animals):
    reward = tiny.loaded({"name": "emoji_judge", "judge": kind})
    assert isinstance(reward, HasFeatures) and not isinstance(
        tiny.loaded({"name": "redness"}), HasFeatures
    )
    other_ground = animals.clone()
    other_ground[:, 2, :16] = 1 - other_ground[:, 2, :16]
    as_they_are, moved, on_another = (
        reward.features(each) for each in (animals, animals.roll(8, 3), other_ground)
    )
    assert as_they_are.ndim == 2
    assert (as_they_are - moved).norm(dim=1).mean() < 0.5 * (as_they_are - on_another).norm(
        dim=1
    ).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_features_tell_like_pictures_from_others(kind, animals):
    """And know a picture again that is four times as large."""
    reward = tiny.loaded({"name": "emoji_judge", "judge": kind})
    small = reward.features(animals)
    large = reward.features(
        torch.nn.functional.interpolate(animals, scale_factor=4, mode="bilinear")
    )
    assert (torch.cdist(small, large).argmin(1) == torch.arange(45)).float().mean() > 0.9


def test_captions_are_english():
    caption = _emoji._caption
    assert caption("cat", "1", "riding a bike") == "a cat riding a bike"
    assert caption("ant", "1", "none") == "an ant"
    assert caption("wolf", "6", "none") == "six wolves"
    assert caption("none", "2", "none") == "two things"


def test_a_prompt_it_knows_nothing_of(animals):
    with pytest.raises(
        RewardError, match=r"the emoji judge cannot score 'a castle'; it knows cat, dog"
    ):
        judged(tiny.loaded({"name": "emoji_judge"}), animals[:1], [Prompt("a castle")])


def test_larger_pictures_are_seen_as_well(judges, animals):
    large = torch.nn.functional.interpolate(animals, scale_factor=4, mode="bilinear")
    right = named(
        judges["trained"], judges["trained"](large), [Prompt(f"a {name}") for name in NAMES]
    )
    assert right[:, 0].mean() > 0.9


def test_alignment_asks_it_in_place_of_a_vision_language_model(judge, animals):
    """With a tiny text encoder of random weights; offline."""
    options = {"vlm": "emoji", "encoder": judge["encoder"], "layer": 2, "jpeg_quality": None}
    got = judged(tiny.loaded({"name": "alignment", **options}), animals[:4], [Prompt("a cat")] * 4)
    assert got.notes["answer"] == ["a cat", "a dog", "a horse", "a monkey"]
    assert got.values.isfinite().all() and got.statuses == ["ok"] * 4


def test_counting_questions_are_answered_by_it(animals):
    (prompt,) = [
        each
        for each in build("prompts", {"name": "counting", "balanced": True}).draw(
            154, torch.Generator()
        )
        if each.text == "two cats"
    ]
    got = judged(tiny.loaded({"name": "vqa", "vlm": "emoji"}), animals[:1], [prompt])
    assert got.notes["answers"] == ["one; a cat"]
    assert got.values.tolist() == [0.5]


def test_a_small_run_learns_what_the_judge_sees(tmp_path):
    """Two epochs of the recipe's own kind; the curves of both judges stand in its metrics."""
    small = {"prompts_per_epoch": 2, "images_per_prompt": 2, "epochs": 1, "micro_batch_size": 4}
    over = {
        "model": {"name": "emoji"},
        "sampler": {"name": "ddim", "num_steps": 2, "spacing": "trailing"},
    }
    prompts = {"name": "animals_activities", "alone": True, "balanced": True}
    config = tiny.config(
        **small, **over, reward={"name": "emoji_judge"}, prompts=prompts, updates_per_epoch=1
    )
    history = train(config, tmp_path / "run")
    assert {"reward_right", "reward_held_out_right"} <= history[0].keys()
    assert re.search(r'"answer": "\w+', (tmp_path / "run" / "rewards.jsonl").read_text())
    assert np.isfinite(history[0]["reward_mean"])
