"""The share of the questions in a prompt's metadata that a vision-language model answers as
expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rediffuse.deferred import torch
from rediffuse.errors import Status
from rediffuse.rewards._answers import Answer, reasons
from rediffuse.rewards._vlm import AnswersQuestions, VlmReward
from rediffuse.rewards._words import says
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["VisualQuestions"]


@dataclass(frozen=True)
class VisualQuestions(VlmReward):
    """The share of a prompt's `questions` whose answer contains the one in `answers`; prompts of
    the sets counting and vqa have both in their metadata.

    Questions without an answer do not count. If none of a prompt's questions counts, the sample is
    unparseable, or failed if the server refused a question.

    Attributes:
        matching: "words" compares whole words in any case, where 6 equals six and cats equals cat,
            and negated words do not count; refusals are no answers, nor are texts without exactly
            one number if a number is expected. "substring" is the published comparison of
            characters, for which "6" is not "six", "not" contains "no", and only an empty text is
            no answer.
    """

    matching: Literal["words", "substring"] = "words"

    def scores(
        self, model: AnswersQuestions, images: Tensor, prompts: Sequence[Prompt]
    ) -> Judgement:
        """Raises ValueError for a prompt without questions."""
        asked = [(i, *pair) for i, prompt in enumerate(prompts) for pair in _questions(prompt)]
        places, questions, answers = zip(*asked, strict=True)
        given = self.ask(model, images[list(places)], questions)
        right = torch.tensor(
            [self._right(said, answer) for said, answer in zip(given, answers, strict=True)]
        )
        owners = torch.tensor(places)
        shares = torch.stack([right[owners == i].nanmean() for i in range(len(prompts))])
        mine = [
            [said for said, place in zip(given, places, strict=True) if place == i]
            for i in range(len(prompts))
        ]
        statuses = [
            _status(each, bool(share.isfinite())) for each, share in zip(mine, shares, strict=True)
        ]
        notes = {"answers": ["; ".join(said.text for said in each) for each in mine]}
        return Judgement(shares, notes={**notes, **reasons(mine)}, statuses=statuses)

    def _right(self, given: Answer, answer: str) -> float:
        if self.scores_zero(given):
            return 0.0
        text = given.text
        right = says(text, answer) if self.matching == "words" else answer in text if text else None
        return float("nan") if right is None else float(right)


def _status(answers: Sequence[Answer], known: bool) -> Status:
    """Returns the status of a sample. If one of its questions timed out, all are asked again."""
    said = {answer.status for answer in answers}
    if "timeout" in said or known:
        return "timeout" if "timeout" in said else "ok"
    return "failed" if "failed" in said else "unparseable"


def _questions(prompt: Prompt) -> list[tuple[str, str]]:
    questions, answers = prompt.metadata.get("questions", []), prompt.metadata.get("answers", [])
    if not questions or len(questions) != len(answers):
        raise ValueError(
            f"the prompt {prompt.text!r} needs metadata with questions and as many answers, as"
            " --prompts counting or vqa has;"
            ' in a .jsonl file: {"prompt": …, "questions": ["what animal is it?"], "answers":'
            ' ["cat"]}'
        )
    return list(zip(questions, map(str, answers), strict=True))
