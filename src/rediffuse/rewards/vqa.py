"""How many questions about an image a vision-language model answers as the prompt's metadata says: counts, animals, deeds."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from rediffuse.rewards._vlm import VlmReward
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    import inflect

__all__ = ["VisualQuestions"]


@dataclass(frozen=True)
class VisualQuestions(VlmReward):
    """The share of a prompt's `questions` whose answer holds the one of `answers` (the prompts counting and vqa have both).

    matching: "words" looks for whole words, in any case, where 6 is six and cats are a cat; "substring" is the published
    one, to the letter, for which "6" is not "six", and "not" holds "no".
    A question that is not answered at all does not count; where none is, NaN.
    """

    matching: Literal["words", "substring"] = "words"

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Raises ValueError for a prompt without questions."""
        asked = [(i, *pair) for i, prompt in enumerate(prompts) for pair in _questions(prompt)]
        places, questions, answers = zip(*asked, strict=True)
        said = self.ask(images[list(places)], questions)
        right = torch.tensor([self._right(text, answer) for text, answer in zip(said, answers, strict=True)])
        owners = torch.tensor(places)
        shares = torch.stack([right[owners == i].nanmean() for i in range(len(prompts))])
        told = ["; ".join(text for text, place in zip(said, places, strict=True) if place == i) for i in range(len(prompts))]
        return Judgement(shares, notes={"answers": told})

    def _right(self, text: str, answer: str) -> float:
        if not text:
            return float("nan")
        return float(holds(text, answer) if self.matching == "words" else answer in text)


def _questions(prompt: Prompt) -> list[tuple[str, str]]:
    questions, answers = prompt.metadata.get("questions", []), prompt.metadata.get("answers", [])
    if not questions or len(questions) != len(answers):
        raise ValueError(
            f"the prompt {prompt.text!r} needs metadata with questions and as many answers, as --prompts counting or vqa has;"
            ' in a .jsonl file: {"prompt": …, "questions": ["what animal is it?"], "answers": ["cat"]}'
        )
    return list(zip(questions, map(str, answers), strict=True))


def holds(text: str, answer: str) -> bool:
    """Whether the words of `answer` stand in `text`, one after the other."""
    words, wanted = _words(text), _words(answer)
    return any(words[i : i + len(wanted)] == wanted for i in range(len(words) - len(wanted) + 1)) if wanted else False


def _words(text: str) -> list[str]:
    """In lower case, numbers up to twenty as digits, nouns in the singular."""
    return [_numbers().get(word) or _singular(word) for word in re.findall(r"[^\W_]+", text.lower())]


@cache
def _english() -> "inflect.engine":
    import inflect  # seconds to import

    return inflect.engine()


@cache
def _numbers() -> dict[str, str]:
    return {str(_english().number_to_words(str(n))): str(n) for n in range(21)}


@cache
def _singular(word: str) -> str:
    if word.isdecimal():
        return str(int(word))
    return str(_english().singular_noun(word) or word) if word.isalpha() else word
