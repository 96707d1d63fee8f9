"""English words: articles, plurals, singulars and numbers. inflect knows them; this is the one
place that asks it.
"""

import threading
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

_IMPORTING = threading.Lock()


@cache
def with_article(noun: str) -> str:
    """Returns "an ant" for "ant"."""
    return str(_engine().a(noun))


@cache
def plural(noun: str) -> str:
    """Returns "wolves" for "wolf"."""
    return str(_engine().plural(noun))


@lru_cache(10_000)
def singular(word: str) -> str:
    """Returns "wolf" for "wolves", and a word that is no plural as it is."""
    return str(_engine().singular_noun(word) or word)


@cache
def number_word(number: int | str) -> str:
    """Returns "six" for 6."""
    return str(_engine().number_to_words(str(number)))


@cache
def _engine() -> "inflect.engine":
    """Imports inflect without the run-time checks of its arguments, as `python -O` does: typeguard
    takes 5 s to write them.
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
