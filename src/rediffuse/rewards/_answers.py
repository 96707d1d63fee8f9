"""What a vision-language model answered, without its reasoning, or why it answered nothing."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rediffuse.errors import Status

TAG = r"(?:think(?:ing)?|thoughts?|reasoning)"
OPEN, CLOSE = rf"(?:<{TAG}>|\[think\]|◁think▷)", rf"(?:</{TAG}>|\[/think\]|◁/think▷)"
REASONING = re.compile(rf"{OPEN}.*?{CLOSE}", re.IGNORECASE | re.DOTALL)
HALF = re.compile(rf"^.*{CLOSE}|{OPEN}.*", re.IGNORECASE | re.DOTALL)
"""Of reasoning that began in the question, or was cut off."""


@dataclass(frozen=True)
class Answer:
    """reason: why there is no text, where that is known."""

    text: str
    status: Status = "ok"
    reason: str = field(default="", compare=False)


def said(text: str) -> Answer:
    """Without the model's reasoning. An empty text answers nothing."""
    spoken = HALF.sub("", REASONING.sub("", text)).strip()
    if spoken:
        return Answer(spoken)
    ended = (
        f"only reasoning; a larger reward.max_tokens may leave room for the answer: {text}"
        if text
        else "an empty answer"
    )
    return Answer("", "unparseable", ended)


def reasons(answers: Iterable[Sequence[Answer]]) -> dict[str, list[str]]:
    """answers: of each sample -> the note `reason`, its first reason for each sample, where there
    is any.
    """
    first = [next((answer.reason for answer in each if answer.reason), "") for each in answers]
    return {"reason": first} if any(first) else {}
