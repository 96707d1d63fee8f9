"""Words as inflect has them, without the seconds that its own checks take."""

import subprocess
import sys

import pytest

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
    [("from rediffuse import english; english.plural('cat')", 0), ("", 1)],
)
def test_typeguard_instruments_nothing_of_it(begun, instrumented):
    program = f"import typeguard._decorators as d; calls = []; real = d.instrument; d.instrument = lambda f: calls.append(f) or real(f)\n{begun}\nimport inflect; print(len(calls) > 0)"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == str(bool(instrumented))
