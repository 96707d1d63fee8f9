"""R14: what a vision-language model may answer, and what that is worth."""

import json
import random
from pathlib import Path

import pytest

from rediffuse.rewards._words import holds, says

CORPUS = [
    json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text().splitlines()
]


def test_the_corpus_is_as_large_as_promised():
    assert len(CORPUS) >= 300
    assert len({(case["text"], case["answer"]) for case in CORPUS}) == len(CORPUS)
    assert {case["says"] for case in CORPUS} == {True, False, None}


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in CORPUS}))
def test_every_answer_of_the_corpus_is_worth_what_stands_beside_it(kind):
    wrong = [
        case
        for case in CORPUS
        if case["kind"] == kind and says(case["text"], case["answer"]) is not case["says"]
    ]
    assert not wrong


def test_any_text_at_all_is_worth_something():
    dice, letters = random.Random(0), "abc six6 -−.½Ⅷ٣²\n\0\u202e\ud7ff🐱no't\"{}[]:/"
    for _ in range(10_000):
        text = "".join(
            dice.choice(letters) if dice.random() < 0.7 else chr(dice.randrange(0xD800))
            for _ in range(dice.randrange(60))
        )
        assert says(text, dice.choice(["6", "six", "cat", "riding a bike"])) in (True, False, None)


def test_a_long_answer_is_read_as_far_as_anyone_would():
    assert says("a cat " + "meow " * 20_000, "cat") is True
    assert says("meow " * 20_000 + "cat", "cat") is False


def test_what_is_denied_is_not_held():
    assert holds("a cat riding a bike", "riding a bike") and not holds(
        "a cat not riding a bike", "riding a bike"
    )
