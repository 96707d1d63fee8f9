"""What comes from outside, at a terminal that may be ASCII, closed, or gone."""

import ast
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import tiny
from rich.table import Table

from rediffuse.cli import fail, main
from rediffuse.errors import RewardError
from rediffuse.terminal import output as terminal

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
    assert (
        len(cut) < terminal.MOST + 100
        and cut.endswith("the end")
        and "980,007 characters left out" in cut
    )


def test_words_of_any_script_and_emoji_stay_as_they_are():
    for text in ("Füchse malen", "रंग", "👩‍🎨 🦊"):
        assert terminal.printable(text) == text


def test_a_warning_is_one_sentence_and_cannot_steer_either(capsys):
    with terminal.warnings_shown():
        warnings.simplefilter("always")
        warnings.warn("odd \x1b[2J", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "rediffuse: UserWarning: odd \\x1b[2J\n"


SAYS = (
    "from rediffuse.terminal import output as terminal\n"
    "for _ in range(3000): terminal.show('\\xf8 \\u2014 a line as long as most lines are')\n"
    "terminal.say('\\xf8'); terminal.console().print('\\xf8')\n"
)


@pytest.mark.parametrize("reader", ["true", "head -1"])
def test_the_work_goes_on_when_the_reader_of_its_output_has_left(reader):
    script = f'"{sys.executable}" -c "$SAYS" | {reader}; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "SAYS": SAYS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "rediffuse: ø\n"


def test_an_ascii_terminal_gets_question_marks():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SAYS], env=environment, capture_output=True, text=True, check=False
    )
    assert (
        done.returncode == 0
        and done.stderr == "rediffuse: ?\n"
        and done.stdout.endswith("lines are\n?\n")
    )


def test_an_output_that_was_closed_before_is_no_error():
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "$SAYS" >&- 2>&-'],
        env={**os.environ, "SAYS": SAYS},
        check=False,
    )
    assert done.returncode == 0


SRC = Path(__file__).parents[1] / "src" / "rediffuse"
ONLY_IN_TERMINAL = {
    "print",
    "Console",
    "rich.print",
    "warnings.showwarning",
    "traceback.print_exception",
    "traceback.print_exc",
}


def written_elsewhere(tree):
    """Calls and imports that reach a terminal on a way of their own."""
    calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    own = [
        call
        for call in calls
        if call in ONLY_IN_TERMINAL or call.startswith(("sys.stdout", "sys.stderr", "rich.print"))
    ]
    imports = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and (n.module or "").split(".")[0] == "rich"
    ]
    return own + [
        a.name for n in imports for a in n.names if a.name in ("print", "Console", "inspect")
    ]


def test_nothing_is_written_to_a_terminal_elsewhere():
    for path in SRC.rglob("*.py"):
        if path != SRC / "terminal" / "output.py":
            assert not written_elsewhere(ast.parse(path.read_text())), path


def test_what_writes_to_a_terminal_elsewhere_would_be_seen():
    for line in ("print(1)", "sys.stdout.write('x')", "from rich import print as show", "from rich.console import Console",
                 "traceback.print_exception(error)"):  # fmt: skip
        assert written_elsewhere(ast.parse(line)), line
    assert not written_elsewhere(ast.parse("console().print(table)"))


def test_messages_of_the_command_cannot_steer_the_terminal(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "a\x1b[2Jb"
    run.mkdir()
    (run / "config.yaml").write_text('"x\\e[2J": 1\n')
    for words in (
        ["\x1b[2J"], ["train", "\x1b[2J"], ["train", "--\x1b[2J", "1"], ["train", "--reward", "\x1b]0;x\x07"], ["list", "\x1b[2J"],
        ["resume", run], ["report", run], ["compare", run], ["report", tmp_path / "\x9b2J"], ["train", "--run-dir", run],
        ["train", "--prompts", "text_file", "--prompts.path", "\x1b[2J"], ["resume", run, "--\x1b[2J"], ["sample", run, "--seed", "\x1b"],
        ["train", "--reward", "mine\x1b[2J.py:f"], ["train", "\u202e.yaml"], ["train", "\udcff.yaml"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, words)))
        said = "".join(capsys.readouterr())
        assert stop.value.code == 2 and said and not STEERS & set(said), words


def test_nor_can_the_traceback_of_a_reward_nor_what_a_server_says(capsys):
    error = RewardError("the server says \x1b[2J")
    error.__cause__ = ValueError("\x1b[2J")
    with pytest.raises(SystemExit):
        fail(str(error), 75, caused_by=error)
    said = capsys.readouterr().err
    assert "ValueError: \\x1b[2J" in said and "says \\x1b[2J" in said and not STEERS & set(said)


def test_a_name_of_300_letters_is_one_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "a" * 300
    toy = ["--model", f"{tiny.FILE}:Toy", "--sampler.num-steps", "4", "--reward", "redness"]
    for words in (
        ["train", *toy, "--run-dir", name], ["train", name], ["train", f"{name}.yaml"], ["train", "--reward", name],
        ["train", "--reward", f"{name}.py:f"], ["train", "--prompts", "text_file", "--prompts.path", name], ["resume", name],
        ["report", name], ["compare", name], ["report", name, "--follow"], ["train", "--prompts", f"{name}:f"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(words)
        said = capsys.readouterr().err
        assert stop.value.code == 2 and "Traceback" not in said and len(said.splitlines()) == 1, (
            words,
            said,
        )


def test_a_bug_is_said_to_be_one_and_exits_1(capsys, monkeypatch):
    monkeypatch.setattr("rediffuse.cli.run", lambda _: {}["\x1b[2J"])
    with pytest.raises(SystemExit) as stop:
        main([])
    said = capsys.readouterr().err
    assert (
        stop.value.code == 1
        and "This is a bug of Rediffuse" in said
        and "KeyError" in said
        and not STEERS & set(said)
    )
