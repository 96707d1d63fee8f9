"""Answers matched with questions, and the reward that counts them."""

import numpy as np
import pytest
import tiny
import torch

from rediffuse.errors import RewardError
from rediffuse.lookup.build import build
from rediffuse.rewards._vlm import VisionLanguageModel
from rediffuse.rewards._words import holds
from rediffuse.scoring.judging import judged
from rediffuse.types import Prompt


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("There are six turtles.", "six", True),
        ("6", "six", True),
        ("Six.", "6", True),
        ("There are 06 of them", "six", True),
        ("sixteen turtles", "six", False),
        ("16", "six", False),
        ("Two turtles", "turtle", True),
        ("a turtle", "turtles", True),
        ("It is a tortoise", "turtle", False),
        ("Nothing is there", "no", False),
        ("No, it is not", "no", True),
        ("A DOG is riding a bike!", "riding a bike", True),
        ("riding; a very old bike", "riding a bike", False),
        ("twenty-one cats", "21", False),
        ("", "cat", False),
        ("a cat", "", False),
        ("a cat", "?!", False),
        ("²3 ٣ cats", "cat", True),
    ],
)
def test_whole_words_match(text, answer, right):
    assert holds(text, answer) is right


PROMPTS = [
    Prompt("six turtles", {"questions": ["how many?", "what?"], "answers": ["six", "turtle"]}),
    Prompt("a cat", {"questions": ["what?"], "answers": ["cat"]}),
    Prompt("two dogs", {"questions": ["how many?", "what?"], "answers": ["two", "dog"]}),
]


@pytest.mark.parametrize(
    ("matching", "said", "want"),
    [
        ("words", ["6 turtles", "a frog", "", "Two", ""], [0.5, torch.nan, 1.0]),
        ("words", ["sixteen", "turtles", "cat", "3", "a hotdog"], [0.5, 1.0, 0.0]),
        ("substring", ["6 turtles", "turtles", "Cat", "two", "a hotdog"], [0.5, 0.0, 1.0]),
    ],
)
def test_the_reward_is_the_share_of_questions_answered_as_asked(
    matching, said, want, judge, monkeypatch
):
    """Every image is asked its own questions, in order."""
    shown = []

    def ask(self, images, questions):
        shown.extend(
            zip(
                [round(np.asarray(image)[0, 0, 0] / 255, 2) for image in images],
                questions,
                strict=True,
            )
        )
        return said

    monkeypatch.setattr(VisionLanguageModel, "ask", ask)
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 8, 8) / 4
    got = tiny.loaded({"name": "vqa", "matching": matching, "vlm": judge["vlm"]})(images, PROMPTS)
    assert got.notes["answers"][0] == "; ".join(said[:2])
    torch.testing.assert_close(got.values, torch.tensor(want), equal_nan=True)
    assert shown == [
        (0, "how many?"),
        (0, "what?"),
        (0.25, "what?"),
        (0.5, "how many?"),
        (0.5, "what?"),
    ]


def test_a_prompt_without_questions(judge):
    reward = tiny.loaded({"name": "vqa", "vlm": judge["vlm"]})
    with pytest.raises(
        RewardError, match=r"'a cat' needs metadata with questions and as many answers"
    ):
        judged(reward, torch.rand(1, 3, 8, 8), [Prompt("a cat", {"questions": ["what?"]})])


def test_the_paper_s_counting_prompts_are_scored(judge):
    prompts = build("prompts", {"name": "counting"}).draw(4, torch.Generator().manual_seed(0))
    got = tiny.loaded({"name": "vqa", "vlm": judge["vlm"], "max_tokens": 4})(
        torch.rand(4, 3, 16, 16), prompts
    )
    values = got.values
    assert values.shape == (4,) and ((values == 0) | (values == 0.5) | (values == 1)).all()


def test_an_empty_answer_is_a_wrong_one_where_that_is_asked(judge, monkeypatch):
    said = ["6 turtles", "a turtle", "", "Two", ""]
    monkeypatch.setattr(VisionLanguageModel, "ask", lambda self, images, questions: said)
    options = {"vlm": judge["vlm"], "matching": "substring", "empty_scores_zero": True}
    judgement = tiny.loaded({"name": "vqa", **options})(torch.zeros(3, 3, 8, 8), PROMPTS)
    assert judgement.values.tolist() == [0.5, 0.0, 0.0] and judgement.statuses == ["ok"] * 3
