"""English words: articles, plurals, singulars and number words.

The words of the package's own prompts and rewards are read from english.json, which
pretraining/words.py writes. Only other words import inflect, which takes two seconds.
"""

import json
import threading
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import inflect

Form = Literal["with_article", "plural", "singular", "number_word"]

TABLE = Path(__file__).with_suffix(".json")
"""For each form the known words, each with inflect's answer."""
_IMPORTING = threading.Lock()


@cache
def with_article(noun: str) -> str:
    """Returns the noun with its indefinite article: "an ant" for "ant"."""
    return _word("with_article", noun)


@cache
def plural(noun: str) -> str:
    """Returns the plural: "wolves" for "wolf"."""
    return _word("plural", noun)


@lru_cache(10_000)
def singular(word: str) -> str:
    """Returns the singular, "wolf" for "wolves"; a word that is not a plural is returned
    unchanged.
    """
    return _word("singular", word)


@cache
def number_word(number: int | str) -> str:
    """Returns the number in words: "six" for 6."""
    return _word("number_word", str(number))


def inflected(form: Form, word: str) -> str:
    """Returns inflect's answer, also for words of the table."""
    engine = _engine()
    if form == "with_article":
        return str(engine.a(word))
    if form == "plural":
        return str(engine.plural(word))
    if form == "singular":
        return str(engine.singular_noun(word) or word)
    return str(engine.number_to_words(word))


def _word(form: Form, word: str) -> str:
    known = _table()[form].get(word)
    return inflected(form, word) if known is None else known


@cache
def _table() -> dict[Form, dict[str, str]]:
    table: dict[Form, dict[str, str]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


@cache
def _engine() -> "inflect.engine":
    """Imports inflect without typeguard's run-time checks of arguments, as `python -O` does;
    instrumenting them takes 5 s.
    """
    import typeguard

    with _IMPORTING:
        checked = typeguard.typechecked
        typeguard.typechecked = lambda function: function  # type: ignore[assignment]
        try:
            import inflect
        finally:
            typeguard.typechecked = checked
    return inflect.engine()
