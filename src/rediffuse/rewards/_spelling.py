"""Whether a text contains a requested word in any spelling: "sixx tutttles" means six turtles."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from rediffuse.english import number_word
from rediffuse.rewards._words import LONGEST, words_of

WORD = re.compile(r"[^\W_]+")
DOUBLED = re.compile(r"([^\W\d_])\1+")
ALIKE = 0.8
"""The least similarity of a misspelt word: twice the matching letters over the letters of both
words. It allows one wrong letter of five.
"""
FUZZY = 4
"""The fewest letters of a word that may be misspelt. Shorter words have too many neighbours: cat,
hat, car.
"""
LONGEST_WORD = 40
"""The most letters of a word whose misspellings are searched for. A long prompt run together into
one word would take seconds.
"""
IDLE = frozenset(
    WORD.findall(
        "a an and are as at be by do does doing for from has have how image in is it its many of"
        " on or photo picture that the their there these they this to was were what where which"
        " who with"
    )
)
"""Common words of questions, which are ignored."""


def names_any(text: str, phrases: Iterable[str]) -> bool:
    """Whether `text` contains a content word of `phrases`. The word may be misspelt, in the
    singular or plural, a digit instead of a number word (6 for six), or run together with others.
    """
    read = _spellings(WORD.findall(text[:LONGEST].lower()))
    asked = {spelling for phrase in phrases for spelling in _spellings(_telling(phrase))}
    return any(_alike(word, wanted) for wanted in asked for word in read)


def _telling(phrase: str) -> list[str]:
    return [
        word
        for word in WORD.findall(phrase.lower())
        if word not in IDLE and (len(word) > 1 or word.isdecimal())
    ]


def _spellings(words: list[str]) -> set[str]:
    """Returns the spellings to compare: each word as it is and in the singular, numbers as digits
    and as words, and all words run together; all of them without doubled letters.
    """
    plain = words_of(" ".join(words))
    numbers = [number_word(word) for word in plain if word.isdecimal() and len(word) <= 2]
    return {DOUBLED.sub(r"\1", word) for word in (*words, *plain, *numbers, "".join(words)) if word}


def _alike(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    if min(len(word), len(wanted)) < FUZZY or len(wanted) > LONGEST_WORD or wanted.isdecimal():
        return False
    run_together = len(word) > len(wanted) + 1
    places = range(len(word) - len(wanted) + 1) if run_together else ()
    parts = [word[i : i + len(wanted)] for i in places] or [word]
    return any(
        SequenceMatcher(None, part, wanted, autojunk=False).ratio() >= ALIKE for part in parts
    )
