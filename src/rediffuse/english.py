"""English words: articles, plurals, singulars and number words. The only module that imports
inflect.
"""

import threading
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

_IMPORTING = threading.Lock()


@cache
def with_article(noun: str) -> str:
    """Returns the noun with its indefinite article: "an ant" for "ant"."""
    return str(_engine().a(noun))


@cache
def plural(noun: str) -> str:
    """Returns the plural: "wolves" for "wolf"."""
    return str(_engine().plural(noun))


@lru_cache(10_000)
def singular(word: str) -> str:
    """Returns the singular, "wolf" for "wolves"; a word that is not a plural is returned
    unchanged.
    """
    return str(_engine().singular_noun(word) or word)


@cache
def number_word(number: int | str) -> str:
    """Returns the number in words: "six" for 6."""
    return str(_engine().number_to_words(str(number)))


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
