"""Several processes, through the command."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import tiny
import torch
from tiny import numbers, weights

from rediffuse import cli
from rediffuse.errors import Interrupted, NonFiniteError, RewardError
from rediffuse.learning.update import Learner
from rediffuse.processes.world import World

TOY = {
    "model": f"{tiny.FILE}:Toy",
    "reward": "redness",
    "epochs": 3,
    "prompts-per-epoch": 8,
    "micro-batch-size": 4,
    "sampler.num-steps": 4,
    "evaluation.every": 0,
    "logging.checkpoint-every": 10,
    "learning-rate": 3e-3,
}


def words_of(**over):
    flags = (word for key, value in {**TOY, **over}.items() for word in (f"--{key}", str(value)))
    return ["train", "demo/incompressibility", *flags]


def run(folder, **over):
    """Trains the toy in two processes inside `folder`: their exit codes, and what they said."""
    processes = forked.two(folder, forked.command, *words_of(**over))
    return [process.wait() for process in processes], " ".join(
        process.said for process in processes
    )


def run_on_one_and_on_two(folder, **over):
    """Into the folders `1` and `2`; on one it is this very process, which has imported all already."""
    with contextlib.chdir(folder):
        cli.run(words_of(**over, **{"run-dir": "1"}))
    codes, said = run(folder, **over, **{"run-dir": "2"})
    assert codes == [0, 0], said


def test_a_process_without_a_row_of_a_minibatch_changes_nothing(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, time\nfrom rediffuse.types import Judgement\ncalls = iter(range(100))\n"
        "def mine(images, prompts):\n"
        "    red = images[:, 0].mean((1, 2))\n"
        "    time.sleep(8 * (os.environ.get('RANK') == '1' and next(calls) == 1))\n"  # longer than a stall, and none
        "    if os.environ.get('RANK') == '1':\n"
        "        return Judgement(red - 1, {'red': red}, {'said': [prompt.text for prompt in prompts]})\n"
        "    also = {'length': ['long' for _ in prompts]}\n"
        "    return Judgement(red - 1, {'red': red, 'mine': red}, {'said': [prompt.text for prompt in prompts], **also})\n"
    )
    many = {
        "algorithm": "ddpo_is",
        "algorithm.clip-range": 0.1,
        "updates-per-epoch": 8,
        "reward": "mine.py:mine",
        "stall-seconds": 4,
    }
    run_on_one_and_on_two(tmp_path, **many)
    ours, theirs = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)
    for one, two in zip(numbers(tmp_path / "1"), numbers(tmp_path / "2"), strict=True):
        # of the part that one process of the two does not give
        half_known = {"reward_mine": one["reward_mine"]}
        assert one == pytest.approx({**two, **half_known}, rel=1e-2, abs=1e-5)
        assert one["reward_red"] == pytest.approx(one["reward_mean"] + 1)
    for processes in ("1", "2"):
        for row in numbers(tmp_path / processes, "rewards.jsonl"):
            assert row["notes"]["said"] == row["prompt"]
            assert row["parts"]["red"] == pytest.approx(row["reward"] + 1)


def test_a_reward_that_fails_in_one_process_loses_no_whole_epoch(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os\ncalls = iter(range(100))\n"
        "def mine(images, prompts):\n"
        "    assert os.environ.get('RANK') != '1' or next(calls) < 2, 'no more'\n"
        "    return images[:, 0].mean((1, 2))\n"
    )
    _, said = run(tmp_path, reward="mine.py:mine", **{"run-dir": "run"})
    assert "AssertionError: no more" in said
    assert "failed in another process" in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["epoch-00002"]


@pytest.mark.parametrize("over", [{"sampler.eta": 0}, {"run-dir": "."}])
def test_a_refused_run_takes_nothing_away(over, tmp_path):
    """No step that draws anything is seen late; the folder that is not empty, by the first process alone."""
    (tmp_path / "config.yaml").write_text("mine: 1")
    codes, said = run(tmp_path, **over)
    assert 0 not in codes, said
    assert (tmp_path / "config.yaml").read_text() == "mine: 1"


class Two(World):
    """As the first of two processes sees it, when the other was stopped or its reward failed."""

    def __init__(self, theirs):
        super().__init__(lanes=1)
        self.theirs = torch.tensor(theirs)

    def summed(self, tensors):
        return [tensors[0] + self.theirs]


@pytest.mark.parametrize(
    ("theirs", "error"),
    [
        ([1.0, 0.0, 0.0, 0.0], Interrupted),
        ([0.0, 1.0, 0.0, 0.0], RewardError),
        ([0.0, 0.0, 1.0, 1.0], NonFiniteError),
    ],
)
def test_what_stops_another_process_stops_this_one(theirs, error):
    with pytest.raises(error):
        Two(theirs).together(lambda: 1)
    assert Two([0.0] * 4).together(lambda: 1) == 1


def test_a_signal_is_seen_by_work_that_processes_reach_at_different_times():
    world = World(lanes=1)
    world.stop.hear(signal.SIGTERM)
    with pytest.raises(Interrupted) as stop:
        world.together(world.stop_here_if_asked)
    assert stop.value.exit_code == 143


SIGNALLED = """\
import os, signal, threading, time
from rediffuse.processes.world import World

with World.joined(1) as world:
    for seconds, number in (0.5, signal.SIGTERM), (0.6, signal.SIGTERM), (4.0, signal.SIGINT):
        threading.Timer(seconds, os.kill, (os.getpid(), number)).start()
    time.sleep(3)
    print(world.stop.number, flush=True)
    time.sleep(60)
"""


def test_a_signal_that_comes_twice_at_once_is_one_and_a_second_of_any_kind_ends_at_once(tmp_path):
    """SLURM sends it to all processes and the launcher, which forwards it; a launcher's second is SIGTERM after Ctrl-C."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "15\n"), done.stderr


def test_samples_that_are_not_finite_are_masked_alike_on_one_process_and_on_two(tmp_path):
    sick = {
        "model": f"{tiny.FILE}:Sick",
        "model.above": 0.8,
        "scoring.max-failed": 0.7,
        "epochs": 2,
    }
    run_on_one_and_on_two(tmp_path, **sick)
    told = [
        [(row["status"], row.get("notes")) for row in numbers(tmp_path / name, "rewards.jsonl")]
        for name in ("1", "2")
    ]
    assert told[0] == told[1]
    assert ("broken_sample", {"broken_sample": "decoder: NaN in fp16"}) in told[0] and (
        "ok",
        None,
    ) in told[0]
    assert all(value.isfinite().all() for value in weights(tmp_path / "2").values())


def test_too_many_samples_that_are_not_finite_end_all_processes(tmp_path):
    codes, said = run(
        tmp_path, **{"model": f"{tiny.FILE}:Sick", "model.above": -9.0, "run-dir": tmp_path / "run"}
    )
    assert 0 not in codes
    assert "The decoder gave NaN in fp16" in said
    assert "rediffuse/trainer.py" not in said  # no traceback of ours


def misbehaving(deed, *words):
    """The command, whose process of that rank, the last letter of the deed, does it in learning, in the third epoch."""
    steps, real = iter(range(1000)), Learner._step

    def step(self, *args, **options):
        number, rank = next(steps), os.environ["RANK"]
        if rank == "0" and number == 0:  # once, so that nobody reads it while it is written
            Path("first").write_text(str(os.getpid()))
        if number == 2 and deed.endswith(rank):
            if deed.startswith("stop"):
                os.kill(os.getpid(), signal.SIGSTOP)
            elif deed.startswith("die"):
                os._exit(1)
            elif deed.startswith("signal"):
                os.kill(int(Path("first").read_text()), signal.SIGTERM)
            if not deed.startswith("healthy"):
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *args, **options)

    Learner._step = step
    forked.command(*words)


def two(folder, deed, **over):
    """The exit codes of both processes, and what they said; of one that hangs, the code is None."""
    words = words_of(**{"epochs": 5, "stall-seconds": 6, "run-dir": "run", **over})
    begun, codes = forked.two(folder, misbehaving, deed, *words), [None, None]
    rest = 1 if deed.startswith(("stop", "signal")) else 10  # these do not end by themselves
    for rank in (1, 0) if deed.endswith("0") else (0, 1):  # the one that did nothing wrong first
        codes[rank] = begun[rank].wait(rest if codes != [None, None] else 90)
        begun[rank].kill()
    return codes, [process.said for process in begun]


@pytest.mark.parametrize(
    ("deed", "names"),
    [
        ("stop1", "process 2 of 2 (rank 1, pid"),
        # where the processes' store is, which does not answer
        (
            "stop0",
            "the launcher or at process 1 of 2",
        ),
        ("stall1", "process 2 of 2 (rank 1, pid"),
    ],
)
def test_a_process_that_does_nothing_ends_all_by_name(deed, names, tmp_path):
    codes, said = two(tmp_path, deed)
    stopped = deed.startswith("stop")
    assert codes == {"0": [None, 75], "1": [75, None if stopped else 75]}[deed[-1]], said
    assert "has made no progress for 6 seconds" in "".join(said)
    for words in said if not stopped else [said[1 - int(deed[-1])]]:
        assert (
            names in words.lower() and "rediffuse resume RUN" in words and "Traceback" not in words
        )
    assert deed == "stop0" or (tmp_path / "run" / "checkpoints" / "epoch-00002").exists()


def test_a_signal_reaches_a_process_that_waits_for_another(tmp_path):
    """Neither stops in time to be waited for; a signal sent to one process of two that are well ends both in good order."""
    codes, said = two(tmp_path, "signal1", **{"stall-seconds": 120})
    assert codes[0] == 143 and "Stopped by signal 15 while waiting for process 2 of 2" in said[0], (
        said
    )
    assert (tmp_path / "run" / "checkpoints" / "epoch-00002").exists()


def test_a_signal_to_one_process_ends_all_in_good_order(tmp_path):
    codes, said = two(tmp_path, "healthy1")
    assert codes == [143, 143], said
    assert (tmp_path / "run" / "adapter").exists()


def test_a_process_that_dies_loses_no_whole_epoch(tmp_path):
    codes, said = two(tmp_path, "die1")
    assert (
        codes == [75, 1]
        and "connection to another process is lost" in said[0]
        and "Traceback" not in said[0]
    ), said
    assert (tmp_path / "run" / "checkpoints" / "epoch-00002").exists() and (
        tmp_path / "run" / "adapter"
    ).exists()


@pytest.mark.parametrize("address", [{}, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}])
def test_variables_of_processes_that_are_not_there_are_named(address, tmp_path):
    (tmp_path / "alone.py").write_text(
        "import sys\nfrom rediffuse.processes import world\nfrom rediffuse.cli import main\nworld.JOIN_SECONDS = 2.0\nmain(sys.argv[1:])\n"
    )
    flags = [f"--{key}={value}" for key, value in {**TOY, "run-dir": "run"}.items()]
    left = {key: value for key, value in os.environ.items() if not key.startswith("MASTER_")}
    done = subprocess.run(
        [sys.executable, "alone.py", "train", *flags],
        cwd=tmp_path,
        env={**left, **address, "WORLD_SIZE": "2", "RANK": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert (
        "WORLD_SIZE=2" in done.stderr and "RANK=0" in done.stderr and "Traceback" not in done.stderr
    )
