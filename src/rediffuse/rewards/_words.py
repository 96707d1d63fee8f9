"""Whether an answer says something: whole words, in any case, where 6 is six and cats are a cat."""

import re
from collections.abc import Iterator
from functools import cache

from rediffuse.english import number_word, singular

LONGEST = 2000
"""Letters of an answer that are read."""
NEGATIONS = {"no", "not", "neither", "nor", "without", "never", "0"}
LARGE = {"hundred", "thousand", "million", "billion"}
REFUSAL = re.compile(
    r"\b(sorry|unable|cannot|can['’]?t|unsure|not sure|don['’]?t know|as an ai|unclear|n/a)\b",
    re.IGNORECASE,
)
CLAUSE = re.compile(r"[.,;:!?\n]|\bbut\b")
WORD = re.compile(r"(?<![\w.])[-−]\d+|[^\W_]+")


def says(text: str, answer: str) -> bool | None:
    """Whether `text` gives that answer; None where it gives none at all, or for a number two.

    What it denies it does not say: "not a cat", "there are no cats", "I don't see a cat".
    """
    wanted = words_of(answer)
    if len(wanted) == 1 and wanted[0].isdecimal():
        words = words_of(text)
        numbers = {word for word in words if word.lstrip("-").isdecimal()}
        if len(numbers) != 1 or LARGE & set(words):
            return None
        return holds(text, answer)
    if holds(text, answer):
        return True
    return None if not words_of(text) or REFUSAL.search(text[:LONGEST]) else False


def holds(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand in a clause of `text`, one after the other, and nothing
    before them denies it.
    """
    wanted = words_of(phrase)
    return any(
        words[i : i + len(wanted)] == wanted and not NEGATIONS & set(words[:i])
        for words in _clauses(text)
        for i in range(len(words) - len(wanted) + 1 if wanted else 0)
    )


def words_of(text: str) -> list[str]:
    """In lower case, numbers up to twenty as digits, nouns in the singular; "isn't" is "is not"."""
    return [word for words in _clauses(text) for word in words]


def _clauses(text: str) -> Iterator[list[str]]:
    plain = re.sub(r"n['’]t\b", " not", text[:LONGEST].lower()).replace("cannot", "can not")
    for clause in CLAUSE.split(plain):
        yield [
            _numbers().get(word) or _singular(word.replace("−", "-"))
            for word in WORD.findall(clause)
        ]


@cache
def _numbers() -> dict[str, str]:
    return {number_word(n): str(n) for n in range(21)}


def _singular(word: str) -> str:
    if word.lstrip("-").isdecimal():
        return str(int(word))
    return singular(word) if word.isalpha() else word
