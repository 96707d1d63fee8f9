"""What comes from outside, at a terminal that may be ASCII, closed, or gone."""

import io
import os
import subprocess
import sys
import warnings

import pytest
from rich.table import Table

from rediffuse import terminal

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp.exe\udcff\rb\x08[bold]x[/bold]"
STEERS = {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\udcff"} - {"\n"}


@pytest.mark.parametrize("where", ["out", "error"])
def test_nothing_that_steers_a_terminal_is_shown(where, capsys):
    terminal.show(HOSTILE, where)
    said = "".join(capsys.readouterr())
    assert not STEERS & set(said)
    assert r"\x1b[31mred" in said and r"\u202e" in said and "[bold]x[/bold]" in said


def test_nor_in_a_table_whose_cells_are_no_markup(capsys):
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    terminal.console().print(table, HOSTILE)
    said = capsys.readouterr().out
    assert not STEERS & set(said) and said.count("[/bold]") >= 1


def test_a_plain_console_would_be_steered():
    into = io.StringIO()
    from rich.console import Console

    Console(file=into).print("a\x1b[31mred")
    assert STEERS & set(into.getvalue())


def test_line_ends_are_kept_where_they_are_asked_for_alone():
    assert terminal.printable("a\nb") == r"a\x0ab"
    assert terminal.printable("a\nb", newlines=True) == "a\nb"


def test_long_text_loses_its_middle():
    cut = terminal.printable("b" * 10**6 + "the end")
    assert len(cut) < terminal.MOST + 100 and cut.endswith("the end") and "980,007 characters left out" in cut


def test_words_of_any_script_and_emoji_stay_as_they_are():
    for text in ("Füchse malen", "रंग", "👩‍🎨 🦊"):
        assert terminal.printable(text) == text


def test_a_warning_is_one_sentence_and_cannot_steer_either(capsys):
    with terminal.warnings_shown():
        warnings.simplefilter("always")
        warnings.warn("odd \x1b[2J", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "rediffuse: UserWarning: odd \\x1b[2J\n"


SAYS = (
    "from rediffuse import terminal\n"
    "for _ in range(3000): terminal.show('\\xf8 \\u2014 a line as long as most lines are')\n"
    "terminal.say('\\xf8'); terminal.console().print('\\xf8')\n"
)


@pytest.mark.parametrize("reader", ["true", "head -1"])
def test_the_work_goes_on_when_the_reader_of_its_output_has_left(reader):
    script = f'"{sys.executable}" -c "$SAYS" | {reader}; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], env={**os.environ, "SAYS": SAYS}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "rediffuse: ø\n"


def test_an_ascii_terminal_gets_question_marks():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", SAYS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "rediffuse: ?\n" and done.stdout.endswith("lines are\n?\n")


def test_an_output_that_was_closed_before_is_no_error():
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "$SAYS" >&- 2>&-'], env={**os.environ, "SAYS": SAYS}, check=False
    )
    assert done.returncode == 0
