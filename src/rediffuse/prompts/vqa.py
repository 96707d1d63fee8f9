"""Subjects, verbs and objects, each with three questions: the paper's prompts for visual question
answering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rediffuse.english import with_article
from rediffuse.prompts._draw import pick, with_questions
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["QuestionPrompts"]

# Each prompt is (subject, verb, object).
_ANIMALS = ("monkey", "squirrel", "raccoon", "dog", "bear")
V2 = [
    (animal, *deed)
    for deed in (("washing", "dishes"), ("riding", "a bike"), ("playing", "chess"))
    for animal in _ANIMALS
]
V0 = [
    ("cat", "playing", "piano"), ("firefighter", "cooking", "spaghetti"), ("baby", "riding", "a"
" skateboard"),
    ("penguin", "painting", "a picture"), ("robot", "gardening", "a plant"),
    ("monkey", "washing", "dishes"), ("horse", "reading", "a book"), ("chef", "fixing", "a car"),
    ("elephant", "playing", "basketball"), ("squirrel", "painting", "a house"),
    ("turtle", "playing", "guitar"), ("dog", "carrying", "clothes"),
    ("giraffe", "knitting", "a sweater"), ("whale", "painting", "a mural"),
]  # fmt: skip
# How questions refer to objects that have no article in the prompt.
_DEFINITE = {"dishes": "the dishes", "piano": "the piano"}


@dataclass(frozen=True)
class QuestionPrompts:
    """Prompts whose metadata holds questions and answers, for rewards that ask a vision-language
    model.

    Attributes:
        version: "v2" has five animals with three activities, "v0" fourteen mixed prompts.
        balanced: Whether each prompt is drawn equally often in an epoch, instead of independently.
    """

    version: Literal["v2", "v0"] = "v2"
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        deeds = V2 if self.version == "v2" else V0
        return pick([_prompt(*deed) for deed in deeds], n, generator, balanced=self.balanced)


def _prompt(subject: str, verb: str, thing: str) -> Prompt:
    bare = thing.removeprefix("a ")
    definite = f"the {bare}" if thing != bare else _DEFINITE.get(thing, thing)
    questions = {
        f"who is {verb} {definite}?": subject,
        f"what is the {subject} doing?": verb,
        f"what is the {subject} {verb}?": bare,
    }
    return with_questions(f"{with_article(subject)} {verb} {thing}", questions)
