"""Logs that lost lines since a checkpoint learned from them."""

import json
import shutil
from pathlib import Path

import pytest

from rediffuse import resume
from rediffuse.cli import main
from rediffuse.errors import RunError
from rediffuse.runs import log


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained(3), tmp_path / "run"))


def lost(path, number):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: number - 1] + lines[number:]))


def doubled(path, number):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:number], lines[number - 1], *lines[number:]]))


@pytest.mark.parametrize("harm", [lost, doubled])
@pytest.mark.parametrize("name", ["metrics.jsonl", "rewards.jsonl", "monitor.jsonl"])
def test_lines_that_are_lost_or_stand_twice_are_told(harm, name, run):
    harm(run / name, 2)
    with pytest.raises(
        RunError, match=rf"{name} does not match the newest checkpoint.*--drop-damaged-lines"
    ):
        resume(run, epochs=4)
    assert len(resume(run, epochs=4, drop_damaged_lines=True)) == 1


def test_an_epoch_that_lost_its_last_samples_is_told(run):
    lost(run / "rewards.jsonl", len((run / "rewards.jsonl").read_text().splitlines()))
    with pytest.raises(
        RunError,
        match=r"rewards\.jsonl does not match the newest checkpoint: it has missing or repeated samples of epoch 2",
    ):
        resume(run, epochs=4)


def test_a_run_whose_logs_are_whole_goes_on(run):
    """The control of the test above."""
    assert len(resume(run, epochs=4)) == 1


@pytest.mark.parametrize("command", [["resume", "--epochs", "4"], ["report"], ["compare"]])
def test_a_changed_line_is_one_sentence_in_every_command(command, run, capsys):
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text.replace('"reward_mean": ', '"reward_mean": 1', 1))
    with pytest.raises(SystemExit) as stop:
        main(
            [command[0], str(run), "--trust-code", *command[1:]]
            if command[0] == "resume"
            else [command[0], str(run)]
        )
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert (
        "metrics.jsonl, line 1: this line was changed after it was written"
        in " ".join(said.split())
        and "Traceback" not in said
    )


def test_a_paid_reward_that_was_changed_is_not_believed(run):
    paid = run / "rewards.paid-0.jsonl"
    log.append(paid, [{"epoch": 3, "reward": 0.5}])
    paid.write_text(paid.read_text().replace("0.5", "1.0"))
    with pytest.raises(RunError, match=r"rewards\.paid-0\.jsonl, line 1"):
        resume(run, epochs=4)
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 2


def test_a_paid_reward_of_an_older_version_that_lost_a_key_is_one_sentence(run):
    paid = run / "rewards.paid-0.jsonl"
    paid.write_text('{"epoch": 3, "index": 0, "reward": 0.5}\n')
    with pytest.raises(RunError, match=r"rewards\.paid-0\.jsonl, row 1: .*requested again"):
        resume(run, epochs=4)
    paid.unlink()
    assert len(resume(run, epochs=4)) == 1  # the control
