import json
import subprocess
import sys

import pytest
import tiny

from rediffuse.errors import RunError
from rediffuse.runs.creation import create
from rediffuse.runs.folder import existing


def test_what_a_branch_stood_for_is_written_down(tmp_path):
    run = create(tmp_path / "run", tiny.config(seed=5))
    run.pin({"revision": "133a221b"}, tiny.config(reward={"name": "redness", "revision": "7b"}))
    assert run.config().rewards == [{"name": "redness", "revision": "7b"}]
    assert run.config().model == {**tiny.config(seed=5).model, "revision": "133a221b"}
    assert run.config().seed == 5
    noted = json.loads((run.path / "environment.json").read_text())
    assert noted["model"] == {"revision": "133a221b"} and "torch" in noted


def test_a_folder_that_is_not_a_run(tmp_path):
    with pytest.raises(RunError, match="not a run"):
        existing(tmp_path)


def test_a_second_process_on_one_folder_is_refused(tmp_path):
    run = create(tmp_path / "run", tiny.config())
    code = f"from rediffuse.runs.folder import *; from pathlib import Path\nwith RunFolder(Path({str(run.path)!r})).locked(): print('in')"
    with run.locked():
        second = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "is in use by process" in second.stderr
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "in\n"
    )
