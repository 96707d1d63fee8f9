"""Answers of vision-language models: the text without reasoning, or why there is none."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rediffuse.errors import Status

TAG = r"(?:think(?:ing)?|thoughts?|reasoning)"
OPEN, CLOSE = rf"(?:<{TAG}>|\[think\]|◁think▷)", rf"(?:</{TAG}>|\[/think\]|◁/think▷)"
REASONING = re.compile(rf"{OPEN}.*?{CLOSE}", re.IGNORECASE | re.DOTALL)
HALF = re.compile(rf"^.*{CLOSE}|{OPEN}.*", re.IGNORECASE | re.DOTALL)
"""Reasoning with one tag only: its opening tag was part of the question, or it was cut off."""


@dataclass(frozen=True)
class Answer:
    """An answer of a vision-language model.

    Attributes:
        text: The answer without reasoning; empty if there is none.
        status: "ok", or the kind of failure.
        reason: Why there is no text, if known.
    """

    text: str
    status: Status = "ok"
    reason: str = field(default="", compare=False)


def said(text: str) -> Answer:
    """Removes reasoning from what a model generated; the answer is unparseable if nothing
    remains.
    """
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
    """Collects why answers are missing.

    Args:
        answers: The answers about each sample.

    Returns:
        The note `reason`: the first reason of each sample, empty for samples without one. No note
        if no sample has a reason.
    """
    first = [next((answer.reason for answer in each if answer.reason), "") for each in answers]
    return {"reason": first} if any(first) else {}
