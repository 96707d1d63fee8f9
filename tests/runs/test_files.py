"""Writing into a run folder that may be a stranger's, at an instant that may be the last."""

import ast
import os
import shutil
from pathlib import Path

import pytest
import tiny
from killed import KilledError, killed_at

import rediffuse
from rediffuse import resume
from rediffuse.errors import RunError
from rediffuse.runs import files
from rediffuse.runs.creation import create
from rediffuse.runs.folder import existing

SOURCE = Path(rediffuse.__file__).parent
WHOLE_FOLDERS = ("adapter", "samples", "samples/epoch-00003", "checkpoints")
WRITTEN = (
    "config.yaml", "run.pid", "run.lock", "metrics.jsonl", "rewards.jsonl", "rewards.paid-0.jsonl", "monitor.jsonl",
    "samples/prompts.json", "samples/epoch-00003/grid.png", "samples/epoch-00003/000.png", "checkpoints/best.json",
    "adapter/README.md", "environment.json",
)  # fmt: skip


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained(2), tmp_path / "run"))


def linked(run, name, victim):
    place = run / name
    place.parent.mkdir(exist_ok=True, parents=True)
    if place.is_dir():
        shutil.copytree(place, victim)
        shutil.rmtree(place)
    elif place.exists():
        shutil.copy(place, victim)
        place.unlink()
    else:
        victim.write_text("")
    place.symlink_to(victim)


def content(victim):
    paths = [victim, *victim.rglob("*")]
    return {path: path.read_bytes() for path in paths if path.is_file()}


@pytest.mark.parametrize("name", [*WRITTEN, *WHOLE_FOLDERS])
def test_a_link_where_a_run_writes_is_refused_and_nothing_behind_it_changes(name, run, tmp_path):
    if name == "samples/epoch-00003":
        (run / name).mkdir()
    victim = tmp_path / "victim"
    linked(run, name, victim)
    before = content(victim)
    with pytest.raises(RunError, match="is a link") as refused:
        resume(run, epochs=3)
    assert refused.value.exit_code == 2
    assert content(victim) == before


@pytest.mark.parametrize("name", ["report.html", "verdict.json"])
def test_a_link_where_the_page_goes_is_not_followed_either(name, run, tmp_path, capsys):
    linked(run, name, tmp_path / "victim")
    before = content(tmp_path / "victim")
    resume(run, epochs=3)
    assert content(tmp_path / "victim") == before
    assert "is a link" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["samples", "adapter", "samples/epoch-00001", "checkpoints"])
def test_a_link_to_a_folder_that_looks_like_a_run_is_refused_too(name, run, tmp_path):
    linked(run, name, tmp_path / "victim")
    (tmp_path / "victim" / "config.yaml").write_text("")
    (tmp_path / "victim" / "epoch-00003").mkdir(exist_ok=True)
    (tmp_path / "victim" / "epoch-00003" / "config.yaml").write_text("")
    before = content(tmp_path / "victim")
    with pytest.raises(RunError, match="is a link"):
        resume(run, epochs=3)
    assert content(tmp_path / "victim") == before


def test_a_run_can_be_made_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def none(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    create(tmp_path / "run", tiny.config(seed=3))
    assert existing(tmp_path / "run").config().seed == 3
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "run" / "config.yaml", "another")


def test_an_empty_config_of_an_older_version_is_named(run):
    (run / "config.yaml").write_text("")
    with pytest.raises(RunError, match=r"config\.yaml is empty.*Remove the folder"):
        resume(run)


def test_the_same_run_without_links_goes_on(run):
    """The control of the tests above."""
    assert len(resume(run, epochs=3)) == 1


def test_a_run_reached_through_a_link_goes_on(run, tmp_path):
    (tmp_path / "latest").symlink_to(run)
    assert len(resume(tmp_path / "latest", epochs=3)) == 1


def test_a_log_with_another_name_elsewhere_is_refused(run, tmp_path):
    files.append(run / "extra.jsonl", b"{}\n")
    os.link(run / "extra.jsonl", tmp_path / "victim")
    with pytest.raises(RunError, match="is a hard link"):
        files.append(run / "extra.jsonl", b"{}\n")
    assert (tmp_path / "victim").read_bytes() == b"{}\n"


@pytest.mark.parametrize(
    "what", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/null")]
)
def test_a_pipe_or_a_device_is_refused_at_once(what, run):
    (run / "metrics.jsonl").unlink()
    what(run / "metrics.jsonl")
    with pytest.raises(RunError, match="metrics.jsonl is"):
        resume(run, epochs=3)


def test_a_file_that_could_not_be_written_is_what_it_was(tmp_path):
    def on_a_full_disk(path):
        with files.staged(path) as new:
            new.write_text("half")
            raise OSError("the disk is full")

    files.write_text(tmp_path / "file", "before")
    with pytest.raises(OSError, match="full"):
        on_a_full_disk(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


OPERATIONS = [
    *((os, name) for name in ("open", "close", "fsync", "replace", "mkdir", "unlink", "rmdir")),
    (Path, "write_bytes"),
    (Path, "write_text"),
]


def filled(folder):
    with files.staged_folder(folder / "pictures") as new:
        (new / "0.png").write_text("new")
        (new / "1.png").write_text("new")


WRITES = {
    "text": lambda folder: files.write_text(folder / "file", "new"),
    "json": lambda folder: files.write_json(folder / "file", "new"),
    "log": lambda folder: files.append(folder / "file", b"new\n"),
    "folder": filled,
}


@pytest.mark.parametrize("kind", WRITES)
def test_a_kill_at_any_operation_leaves_the_old_or_the_new(kind, tmp_path, monkeypatch):
    found, limit, done = [], 0, False
    while not done:
        folder = tmp_path / str(limit)
        (folder / "pictures").mkdir(parents=True)
        for name in ("file", "pictures/0.png", "pictures/1.png"):
            (folder / name).write_text("old\n")
        with monkeypatch.context() as patch:
            done = killed_at(limit, OPERATIONS, lambda folder=folder: WRITES[kind](folder), patch)
        files.sweep(folder)
        assert {path.name for path in folder.rglob("*")} == {"file", "pictures", "0.png", "1.png"}
        found += [
            (folder / name).read_text()
            for name in (("file",) if kind != "folder" else ("pictures/0.png", "pictures/1.png"))
        ]
        limit += 1
    whole = {"text": "new", "json": '"new"\n', "log": "old\nnew\n", "folder": "new"}[kind]
    assert limit > 2 and set(found) == {"old\n", whole}


@pytest.mark.parametrize("instant", ["link", "fsync"])
def test_a_run_that_was_killed_while_it_was_made_is_no_obstacle(instant, tmp_path, monkeypatch):
    def killed(*_):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(os, instant, killed)
        with pytest.raises(KilledError):
            create(tmp_path / "run", tiny.config())
    (tmp_path / "run" / ".staged-1-config.yaml").write_text("half")  # what a real kill leaves
    create(tmp_path / "run", tiny.config(seed=3))
    assert existing(tmp_path / "run").config().seed == 3


def test_what_a_kill_left_unfinished_is_gone_when_the_run_goes_on(run):
    (run / ".staged-1-report.html").write_text("half")
    (run / ".staged-2-adapter").mkdir()
    (run / "samples" / ".staged-3-epoch-00002").mkdir()
    resume(run, epochs=3)
    assert not [*run.rglob(".staged-*")]


@pytest.mark.parametrize("name", ["samples/prompts.json", "environment.json"])
def test_an_empty_file_of_an_older_version_is_named(name, run):
    (run / name).write_text("")
    with pytest.raises(RunError, match=Path(name).name):
        resume(run, epochs=3)


WRITERS = {"write_text", "write_bytes", "mkdir", "unlink", "touch", "symlink_to", "hardlink_to", "truncate", "rmtree", "save_file", "save_pretrained", "savefig", "rmdir", "copyfile", "copytree", "move", "save"}  # fmt: skip
OWNERS = ("files", "checkpoint", "pictures")
"""Whose functions of these names are ours: `files.write_text`, `checkpoint.save`, `self.pictures.save`."""
ELSEWHERE = {
    "evaluation/pictures.py": "a staged place",
    "report/pictures.py": "memory",
    "images.py": "memory",
    **{
        f"modalities/{name}.py": "a staged folder" for name in ("audio", "image", "vector", "video")
    },
    "runs/checkpoint.py": "a staged folder of checkpoints/, which files.make_folder has looked at",
    "runs/creation.py": "the run's own folder, before anything is in it",
    "runs/export.py": "a staged folder",
    "models/_diffusers.py": "families write to a staged place that runs/ gives them",
    "models/_fine_tuned.py": "the same",
    "rewards/aesthetic.py": "the cache of the Hub",
    "lookup/trust.py": "what was allowed is remembered outside of run folders",
    "report/charts.py": "memory",
}


def writers(source):
    """Lines that write a file by other means than runs/files.py."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        value = getattr(node.func, "value", None)
        owner = getattr(value, "id", getattr(value, "attr", ""))
        # of evaluation/pictures.py, which stages
        ours = name == "save" and isinstance(node.func, ast.Name)
        modes = [
            each.value
            for each in (*node.args, *(k.value for k in node.keywords))
            if isinstance(each, ast.Constant)
        ]
        opens = name in ("open", "fdopen") and any(
            isinstance(mode, str) and set(mode) & set("wax+") and len(mode) < 4 for mode in modes
        )
        if (
            opens
            or (owner not in OWNERS and name in WRITERS and not ours)
            or (owner == "os" and name in ("replace", "rename", "link"))
        ):
            found.append(node.lineno)
    return found


def test_nothing_else_writes_into_a_run_folder():
    others = {
        str(path.relative_to(SOURCE)): writers(path.read_text())
        for path in SOURCE.rglob("*.py")
        if path.name != "files.py"
    }
    assert {name for name, lines in others.items() if lines} == set(ELSEWHERE)


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text('x')",
        "open(path, 'w')",
        "path.open('a')",
        "os.replace(a, b)",
        "image.mkdir()",
        "image.save(path)",
    ],
)
def test_a_line_that_writes_would_be_seen(line):
    assert writers(f"import os\n{line}\n") == [2]
    assert not writers("files.write_text(path, 'x')\nopen(path, 'rb')\ntext.replace('a', 'b')\n")
