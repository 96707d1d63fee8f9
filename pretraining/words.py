"""Writes the table of English words (src/rediffuse/english.json) with inflect's answers for the
words of the package's own prompts and rewards: python -m pretraining.words
"""

import json
from collections.abc import Iterable

from rediffuse.english import TABLE, Form, inflected
from rediffuse.prompts import counting, everyday_objects, vqa
from rediffuse.prompts._animals import NAMES, UNSEEN, UNSEEN_ACTIVITIES
from rediffuse.prompts.animals_activities import ACTIVITIES
from rediffuse.rewards._words import WORD

SUBJECTS = [subject for subject, _, _ in [*vqa.V0, *vqa.V2]]
NOUNS = sorted({*NAMES, *UNSEEN, *everyday_objects.NAMES, *SUBJECTS, "thing"})
"""Every noun that needs an article or a plural; a judge calls what it does not recognise a
thing."""
NUMBERS = [str(number) for number in range(21)]
"""The numbers that answers are searched for."""


def texts() -> Iterable[str]:
    """Yields texts with all words of prompts, questions and answers."""
    prompts = [vqa._prompt(*deed) for deed in [*vqa.V0, *vqa.V2]]
    prompts += [counting._prompt(name, "two") for name in counting.NAMES]
    for prompt in prompts:
        yield from (prompt.text, *prompt.metadata["questions"], *prompt.metadata["answers"])
    yield from (inflected("with_article", noun) for noun in NOUNS)
    yield from (inflected("plural", noun) for noun in NOUNS)
    yield from (*ACTIVITIES, *UNSEEN_ACTIVITIES, *counting.NUMBERS)


def table() -> dict[Form, dict[str, str]]:
    """Returns for each form the words of the package, each with inflect's answer."""
    words = {word for text in texts() for word in WORD.findall(text.lower()) if word.isalpha()}
    known: dict[Form, list[str]] = {
        "with_article": NOUNS,
        "plural": NOUNS,
        "singular": sorted(words),
        "number_word": NUMBERS,
    }
    return {form: {word: inflected(form, word) for word in known[form]} for form in known}


if __name__ == "__main__":
    TABLE.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
