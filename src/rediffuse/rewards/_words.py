"""Whether an answer contains a word or number: whole words in any case, where 6 equals six and cats
equals cat.
"""

import re
from collections.abc import Iterator
from functools import cache

from rediffuse.english import number_word, singular

LONGEST = 2000
"""The most characters of an answer that are read."""
NEGATIONS = {"no", "not", "neither", "nor", "without", "never", "0"}
"""Words that negate what follows in their clause."""
LARGE = {"hundred", "thousand", "million", "billion"}
"""Number words that are not understood; an answer with one gives no number."""
REFUSAL = re.compile(
    r"\b(sorry|unable|cannot|can['’]?t|unsure|not sure|don['’]?t know|as an ai|unclear|n/a)\b",
    re.IGNORECASE,
)
CLAUSE = re.compile(r"[.,;:!?\n]|\bbut\b")
WORD = re.compile(r"(?<![\w.])[-−]\d+|[^\W_]+")


def says(text: str, answer: str) -> bool | None:
    """Whether a model's text gives the expected answer.

    Negated words do not count: "not a cat", "there are no cats", "I don't see a cat".

    Args:
        text: What the model answered.
        answer: The expected answer.

    Returns:
        None if the text gives no answer at all: it is empty or a refusal or, if a number is
        expected, it contains no number or several different ones.
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
    """Whether a clause of `text` contains the words of `phrase` one after another, without a
    negation before them.
    """
    wanted = words_of(phrase)
    return any(
        words[i : i + len(wanted)] == wanted and not NEGATIONS & set(words[:i])
        for words in _clauses(text)
        for i in range(len(words) - len(wanted) + 1 if wanted else 0)
    )


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, with numbers up to twenty as digits, nouns in the
    singular, and "isn't" as "is not".
    """
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
