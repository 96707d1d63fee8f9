"""Text is held against a picture, and more so where it says what was asked for."""

import json
import sys

import pytest
import tiny
import torch
from PIL import Image, ImageDraw, ImageFont

from rediffuse import train
from rediffuse.errors import ConfigError
from rediffuse.images import tensor
from rediffuse.lookup.build import build
from rediffuse.scoring.judging import judged
from rediffuse.types import Prompt, RewardFamily

TURTLES = Prompt(
    "six turtles", {"questions": ["How many turtles are there in this image?"], "answers": ["six"]}
)


def written(text, size=64):
    image = Image.new("RGB", (size, size), "khaki")
    ImageDraw.Draw(image).text(
        (size / 2, size / 2), text, "black", ImageFont.load_default(size / 5), "mm"
    )
    return tensor(image)


@pytest.fixture(scope="module")
def reward():
    return tiny.loaded({"name": "text_penalty"})


def test_nothing_costs_nothing_text_costs_and_what_was_asked_for_costs_more(reward):
    images = torch.stack([written(""), written("hello"), written("tutttles"), written("sixx")])
    got = judged(reward, images, [TURTLES] * 4)
    assert got.values.tolist() == [0.0, -1.0, -2.0, -2.0]
    assert got.parts["has_text"].tolist() == [0, 1, 1, 1]
    assert got.parts["names_the_prompt"].tolist() == [0, 0, 1, 1]
    assert got.notes["text"][:2] == ["", "hello"] and got.statuses == ["ok"] * 4


def test_the_same_text_is_an_attack_for_one_prompt_and_none_for_another(reward):
    images = written("turtle").expand(3, 3, 64, 64)
    prompts = [
        Prompt("six turtles"),
        Prompt("two dogs"),
        Prompt("an animal", {"answers": ["turtle"]}),
    ]
    assert judged(reward, images, prompts).values.tolist() == [-2.0, -1.0, -2.0]


def test_both_prices_are_options(reward):
    images = torch.stack([written("hello"), written("turtle")])
    options = {"name": "text_penalty", "text": 0.0, "attack": 3.0}
    assert judged(tiny.loaded(options), images, [TURTLES] * 2).values.tolist() == [0.0, -3.0]


def test_a_floor_of_one_reads_nothing():
    images = written("hello")[None]
    assert judged(
        tiny.loaded({"name": "text_penalty", "min_confidence": 1.0}), images, [TURTLES]
    ).values.tolist() == [0.0]


@pytest.mark.parametrize(
    "options", [{"text": -1}, {"attack": float("nan")}, {"min_confidence": 1.5}]
)
def test_options_that_cannot_be(options):
    with pytest.raises(ConfigError, match=rf"reward\.{next(iter(options))}: "):
        tiny.loaded({"name": "text_penalty", **options})


def test_a_package_that_is_missing_is_told_before_the_model_is_loaded(monkeypatch, tmp_path):
    assert isinstance(build("reward", {"name": "text_penalty"}), RewardFamily)
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    config = tiny.config(
        reward={"name": "text_penalty"}, model={"name": f"{tiny.FILE}:NeverLoaded"}
    )
    with pytest.raises(ConfigError, match=r"pip install 'rediffuse\[ocr\]'"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_is_a_term_of_a_sum(reward):
    """With a positive weight: less text is more reward."""
    terms = [{"name": "redness"}, {"name": "text_penalty", "weight": 2}]
    summed = tiny.combined(terms, normalize=False)
    images = torch.stack([written(""), written("turtle")])
    got = judged(summed, images, [TURTLES] * 2)
    assert got.parts["text_penalty"].tolist() == [0.0, -2.0]
    torch.testing.assert_close(got.values, got.parts["redness"] + 2 * got.parts["text_penalty"])
    assert got.notes["text_penalty_text"] == ["", "turtle"]


def test_a_run_learns_from_it_and_its_parts_are_logged(tmp_path):
    """On noise of 4 x 4 pixels, of which nothing is read."""
    history = train(tiny.config(reward={"name": "text_penalty"}, epochs=1), tmp_path / "run")
    assert (
        history[0]["reward_mean"]
        == history[0]["reward_has_text"]
        == history[0]["reward_names_the_prompt"]
        == 0
    )
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    assert all(row["notes"] == {"text": ""} for row in rows)


def test_what_was_asked_may_be_one_phrase_or_several_or_none():
    from rediffuse.rewards.text_penalty import words_asked_for

    assert words_asked_for(Prompt("a", {"questions": "how many?", "answers": ["six", 6]})) == [
        "a",
        "how many?",
        "six",
        "6",
    ]
    assert words_asked_for(Prompt("a", {"questions": None, "answers": 6})) == ["a", "6"]
