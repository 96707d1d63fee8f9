import pytest
import tiny

from rediffuse.errors import RunError
from rediffuse.runs.creation import create, fresh_path
from rediffuse.runs.folder import existing


def test_a_folder_holds_what_is_needed_to_run_it_again(tmp_path):
    run = create(tmp_path / "run", tiny.config(seed=5))
    assert existing(run.path).config() == tiny.config(seed=5)
    assert "torch" in (run.path / "environment.json").read_text()


def test_a_folder_with_anything_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="exists already"):
        create(tmp_path, tiny.config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="exists already"):
        create(tmp_path / "file", tiny.config())
    with pytest.raises(RunError, match="Cannot write"):
        create(tmp_path / "file" / "run", tiny.config())


def test_of_two_that_start_at_once_one_gets_the_folder(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    # as both saw it a moment ago
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda self: iter(()))
    create(tmp_path / "run", tiny.config(seed=1))
    with pytest.raises(RunError, match="taken by another process"):
        create(tmp_path / "run", tiny.config(seed=2))
    assert existing(tmp_path / "run").config().seed == 1


def test_fresh_paths_count_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(fresh_path("demo/compressibility")) == "runs/demo-compressibility-1"
    assert str(fresh_path("demo/compressibility")) == "runs/demo-compressibility-2"
    assert str(fresh_path("../my recipe.yaml")) == "runs/my recipe-1"
