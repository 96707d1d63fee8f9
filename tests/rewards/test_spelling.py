"""Words that were asked for are known however they are spelt, and others are not."""

import random
import time
from itertools import pairwise

import pytest
import torch

from rediffuse.lookup.build import build
from rediffuse.rewards._spelling import names_any
from rediffuse.rewards.text_penalty import words_asked_for

TURTLES = [
    "six turtles",
    "How many turtles are there in this image?",
    "What animal is in this image?",
    "six",
    "turtle",
]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("sixx tutttles", "six turtles"),
        ("sixxtutttles", "six turtles"),
        ("tutttles", "six turtles"),
        ("SIXX", "six turtles"),
        ("6", "six turtles"),
        ("six", "6 turtles"),
        ("tur tles", "six turtles"),
        ("wolf", "four wolves"),
        ("wolvess", "four wolves"),
        ("two trogs", "two frogs"),
        ("twodogs", "two dogs"),
        ("mouse", "eight mice"),
        ("cight", "eight mice"),
        ("soven; birds", "seven birds"),
        ("bikke", "a lion riding a bike"),
        ("katze", "eine Katze"),
    ],
)
def test_a_word_that_was_asked_for(text, phrase):
    assert names_any(text, [phrase])


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "six turtles"),
        ("...", "six turtles"),
        ("seven", "six turtles"),
        ("66", "six turtles"),
        ("hat", "a cat"),
        ("beer", "a bee"),
        ("for our", "four wolves"),
        ("what is this", "what is the bear doing?"),
        ("how many images", "How many turtles are there in this image?"),
        ("a", "a cat"),
        ("hello world", "six turtles"),
        ("anything", ""),
    ],
)
def test_another_word(text, phrase):
    assert not names_any(text, [phrase])


def test_all_phrases_are_looked_through():
    assert names_any("turtel", TURTLES) and not names_any("tiger", TURTLES)
    assert names_any("animal", TURTLES)


def test_the_words_of_one_prompt_are_hardly_those_of_another():
    """Of the paper's prompts: those of another count and animal."""
    prompts = build("prompts", {"name": "counting"}).draw(200, torch.Generator().manual_seed(0))
    pairs = [(a, b) for a, b in pairwise(prompts) if not set(a.text.split()) & set(b.text.split())]
    assert all(names_any(a.text, words_asked_for(a)) for a, _ in pairs)
    assert sum(names_any(a.text, words_asked_for(b)) for a, b in pairs) / len(pairs) < 0.1


def test_any_text_is_looked_through_at_once():
    dice = random.Random(0)
    letters = "abcdeilnorstuv \n\0\u202e6½Ⅷ٣²口🐱"
    began = time.perf_counter()
    for _ in range(200):
        assert names_any("".join(dice.choices(letters, k=40)), TURTLES) in (True, False)
    names_any("tutle " * 100_000, TURTLES)
    assert time.perf_counter() - began < 10
