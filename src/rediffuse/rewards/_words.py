"""Whether an answer says something: whole words, in any case, where 6 is six and cats are a cat."""

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

LONGEST = 2000
"""Letters of an answer that are read."""
ARTICLES = {"a", "an", "any", "the"}
NEGATIONS = {"no", "not", "neither", "nor", "without", "never"}
REFUSAL = re.compile(r"\b(sorry|unable|cannot|can['’]?t|unsure|not sure|don['’]?t know|as an ai|unclear|n/a)\b", re.IGNORECASE)


def says(text: str, answer: str) -> bool | None:
    """Whether `text` gives that answer; None where it gives none at all, or for a number two.

    What it denies it does not say: "not a cat", "no cats".
    """
    words, wanted = words_of(text), words_of(answer)
    if len(wanted) == 1 and wanted[0].isdecimal():
        numbers = set(words) & {word for word in words if word.lstrip("-").isdecimal()}
        return numbers == {wanted[0]} if len(numbers) == 1 else None
    if _stands(words, wanted):
        return True
    return None if not words or REFUSAL.search(text[:LONGEST]) else False


def holds(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand in `text`, one after the other, and are not denied."""
    return _stands(words_of(text), words_of(phrase))


def _stands(words: list[str], wanted: list[str]) -> bool:
    places = [i for i in range(len(words) - len(wanted) + 1) if words[i : i + len(wanted)] == wanted] if wanted else []
    return any(not _denied(words[:i]) for i in places)


def _denied(before: list[str]) -> bool:
    """before: the words that lead to what is said."""
    meant = [word for word in before[-3:] if word not in ARTICLES]
    return bool(meant) and meant[-1] in NEGATIONS


def words_of(text: str) -> list[str]:
    """In lower case, numbers up to twenty as digits, nouns in the singular."""
    found = re.findall(r"(?<![\w.])[-−]\d+|[^\W_]+", text[:LONGEST].lower())
    return [_numbers().get(word) or _singular(word.replace("−", "-")) for word in found]


@cache
def english() -> "inflect.engine":
    import inflect  # seconds to import

    return inflect.engine()


@cache
def _numbers() -> dict[str, str]:
    return {str(english().number_to_words(str(n))): str(n) for n in range(21)}


@lru_cache(10_000)
def _singular(word: str) -> str:
    if word.lstrip("-").isdecimal():
        return str(int(word))
    return str(english().singular_noun(word) or word) if word.isalpha() else word
