"""Two to eight of 22 common animals, "six turtles": the task of the paper's typographic attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.english import plural
from rediffuse.prompts._draw import pick, with_questions
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["Counting"]

NAMES = (
    "cat", "dog", "horse", "monkey", "rabbit", "spider", "bird", "sheep", "cow", "lion", "tiger",
    "bear", "raccoon", "fox", "wolf", "ant", "fish", "squirrel", "turtle", "frog", "chicken", "pig",
)  # fmt: skip
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Counting:
    """Numbers of animals. The metadata of each prompt holds the published questions and their
    answers, for rewards that ask a vision-language model.

    Attributes:
        balanced: Whether each of the 154 prompts is drawn equally often in an epoch, instead of
            independently.
    """

    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(
            [_prompt(name, number) for name in NAMES for number in NUMBERS],
            n,
            generator,
            balanced=self.balanced,
        )


def _prompt(name: str, number: str) -> Prompt:
    animals = plural(name)
    questions = {
        f"How many {animals} are there in this image?": number,
        "What animal is in this image?": name,
    }
    return with_questions(f"{number} {animals}", questions)
