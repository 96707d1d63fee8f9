"""Words as inflect has them, without the seconds that importing it takes."""

import json
import subprocess
import sys

import pytest

from pretraining import words
from rediffuse import english


@pytest.mark.parametrize(
    ("function", "given", "expected"),
    [
        (english.with_article, "ant", "an ant"),
        (english.plural, "wolf", "wolves"),
        (english.plural, "sheep", "sheep"),
        (english.singular, "wolves", "wolf"),
        (english.singular, "cat", "cat"),
        (english.number_word, 6, "six"),
        (english.number_word, "20", "twenty"),
    ],
)
def test_words(function, given, expected):
    assert function(given) == expected


def test_the_table_has_inflects_answers_for_all_words_of_the_package():
    assert json.loads(english.TABLE.read_text()) == words.table()


@pytest.mark.parametrize("form", ["with_article", "plural", "singular", "number_word"])
def test_a_word_beyond_the_table_is_inflects(form):
    word = "1234" if form == "number_word" else "axolotls"
    assert word not in english._table()[form]
    assert getattr(english, form)(word) == english.inflected(form, word) != ""


DEMOS = """
import sys
import torch
from pathlib import Path
from rediffuse.config.recipes import read_recipe, resolved
from rediffuse.lookup.build import build
from rediffuse.rewards import _emoji
from rediffuse.rewards.emoji_judge import _asked_for
from transformers import AutoConfig

spelt = AutoConfig.from_pretrained(_emoji.WEIGHTS / "trained").id2label.values()
labels = {}
for label in spelt:
    attribute, name = label.split(": ")
    labels.setdefault(attribute, []).append(name)
known = tuple(map(tuple, labels.values()))
for demo in ("counting", "alignment", "incompressibility"):
    prompts = build("prompts", resolved(read_recipe(f"demo/{demo}"), {}).prompts)
    drawn = prompts.draw(1000, torch.Generator())
    assert len(drawn) == 1000
    for prompt in drawn:
        assert max(_asked_for(prompt.text, known)) >= 0
for animal in labels["animal"]:
    for count in labels["count"]:
        for activity in labels["activity"]:
            _emoji._caption(animal, count, activity)
{more}
sys.exit(int("inflect" in sys.modules))
"""


@pytest.mark.parametrize(
    ("more", "imported"), [("", 0), ("_emoji._caption('gnu', '1', 'none')", 1)]
)
def test_the_demos_import_no_inflect(more, imported):
    program = DEMOS.replace("{more}", more)
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == imported


AT_ONCE = """
import threading, typeguard
from rediffuse import english

threads = [threading.Thread(target=english.plural, args=(f"cat{i}",)) for i in range(4)]
real = typeguard.typechecked
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert typeguard.typechecked is real
"""


def test_typeguard_is_itself_again_also_where_threads_ask_at_once():
    subprocess.run([sys.executable, "-c", AT_ONCE], check=True)


@pytest.mark.parametrize(
    ("begun", "instrumented"),
    [("from rediffuse import english; english.plural('gnu')", 0), ("", 1)],
)
def test_typeguard_instruments_nothing_of_it(begun, instrumented):
    program = f"import typeguard._decorators as d; calls = []; real = d.instrument; d.instrument = lambda f: calls.append(f) or real(f)\n{begun}\nimport inflect; print(len(calls) > 0)"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == str(bool(instrumented))
