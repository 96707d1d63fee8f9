"""R11: a reward function may do anything; the run says what it did, masks what it must, waits where that helps, and never hangs."""

import asyncio
import contextlib
import json
import math
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pytest
import tiny
import torch

from rediffuse import cli, resume, train
from rediffuse.errors import RewardError
from rediffuse.runs import log
from rediffuse.scoring.judging import judged
from rediffuse.types import Judgement, Prompt

pytestmark = pytest.mark.usefixtures("without_charts")


def bright(images):
    return images.mean((1, 2, 3))


def raises(images, prompts):
    raise KeyError("no such thing")


def exits(images, prompts):
    sys.exit(3)


def hangs(images, prompts):
    time.sleep(15)


def cannot_connect(images, prompts):
    raise ConnectionRefusedError("nobody is there")


class StatusError(RuntimeError):
    """As that of a client of HTTP."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.response = SimpleNamespace(status_code=status)


def refused(images, prompts):
    raise StatusError(404)


def gives_up(images, prompts):
    raise KeyboardInterrupt


def is_cancelled(images, prompts):
    raise asyncio.CancelledError


def not_finite(said):
    return (
        "^4 of 8 rewards of this epoch cannot be trained on: 4 non_finite; scoring.max_failed allows a share of 0.05."
        f" The first: non_finite: error 'The reward <lambda> gave {said}.'. The run is saved"
    )


STOPS = {
    "raises": (raises, "raises failed on a batch of 4 images: KeyError: 'no such thing'"),
    "exits": (exits, "exits failed on a batch of 4 images: SystemExit: 3. The run is saved"),
    "gives up": (
        gives_up,
        "gives_up failed on a batch of 4 images: KeyboardInterrupt. The run is saved",
    ),
    "is cancelled": (
        is_cancelled,
        "is_cancelled failed on a batch of 4 images: CancelledError. The run is saved",
    ),
    "hangs": (
        hangs,
        "has returned nothing for 0.5 seconds: The reward hangs took more than 0.3 seconds on 4 images",
    ),
    "cannot connect": (
        cannot_connect,
        "nothing for 0.5 seconds: .*ConnectionRefusedError: nobody is there",
    ),
    "None": (
        lambda i, p: None,
        "8 rewards .*: 4 invalid_shape; .* must give 4 numbers, one per image; it gave NoneType",
    ),
    "a text": (lambda i, p: "1.0", "it gave str"),
    "texts": (lambda i, p: ["high"] * len(p), "it gave list"),
    "a dict": (lambda i, p: {"score": [1.0] * len(p)}, "it gave dict"),
    "a number": (lambda i, p: 0.5, r"shape \(4,\); it gave shape \(\)"),
    "a column": (lambda i, p: bright(i)[:, None], r"it gave shape \(4, 1\)"),
    "one too many": (lambda i, p: [0.0] * (len(p) + 1), r"it gave shape \(5,\)"),
    "one too few": (lambda i, p: [0.0] * (len(p) - 1), r"it gave shape \(3,\)"),
    "ragged": (lambda i, p: [[0.0]] * (len(p) - 1) + [[0.0, 1.0]], "it gave list"),
    "complex": (lambda i, p: bright(i) * 1j, "it gave Tensor"),
    "complex numbers": (lambda i, p: [1j] * len(p), "it gave list"),
    "NaN": (
        lambda i, p: bright(i) * math.nan,
        not_finite("nan: only finite numbers can be trained on"),
    ),
    "infinite": (
        lambda i, p: bright(i) + math.inf,
        not_finite("inf: only finite numbers can be trained on"),
    ),
    "huge": (
        lambda i, p: [1e300 * (n + 1) for n in range(len(p))],
        not_finite(r"more than float32 holds \(3.4e\+38\): scale it down"),
    ),
    "huger": (
        lambda i, p: [10**400] * len(p),
        "must give one number per image, or a Judgement of them; it gave",
    ),
    "sparse": (
        lambda i, p: bright(i).to_sparse(),
        "must give one number per image, or a Judgement of them",
    ),
    "parts that are none": (
        lambda i, p: Judgement(bright(i), parts=None),
        "or a Judgement of them; it gave Judgement",
    ),
    "notes that are none": (
        lambda i, p: Judgement(bright(i), notes={"said": None}),
        "or a Judgement of them; it gave Judgement",
    ),
    "a file that is missing": (
        lambda i, p: Path("nowhere/at all").read_text(),
        "FileNotFoundError: .*nowhere/at all",
    ),
    "a refused question": (refused, "StatusError: status 404"),
    "a status that is none": (
        lambda i, p: Judgement(bright(i), statuses=["fine"] * len(p)),
        "one status per image, of ok, failed",
    ),
}


def plan(**over):
    return tiny.config(
        **{"epochs": 1, "scoring": {"timeout_seconds": 0.3, "deadline_seconds": 0.5}, **over}
    )


@pytest.mark.parametrize("kind", STOPS)
def test_what_gives_no_numbers_stops_the_run_in_time_and_is_told(kind, well, tmp_path):
    reward, said = STOPS[kind]
    began = time.monotonic()
    with pytest.raises(RewardError, match=said):
        train(plan(), tmp_path / "run", reward)
    assert time.monotonic() - began < 0.3 + 0.5 + 2
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["epoch-00000"]


def changes_the_images(images, prompts):
    values = bright(images)
    images.zero_()
    return values


def seeds_everything(images, prompts):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    return bright(images)


def prints(images, prompts):
    print("x" * 10_000)
    return bright(images)


def forks(images, prompts):
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return bright(images)


def is_slow(images, prompts):
    time.sleep(0.2)
    return bright(images)


LEFT_BEHIND = []


def leaks(images, prompts):
    LEFT_BEHIND.append(torch.zeros(1_000_000))
    return bright(images)


HARMLESS = {
    "a list": lambda i, p: bright(i).tolist(),
    "numpy": lambda i, p: bright(i).numpy(),
    "tensors": lambda i, p: list(bright(i)),
    "arrays of no dimensions": lambda i, p: [np.array(float(each)) for each in bright(i)],
    "with a graph": lambda i, p: bright(i.requires_grad_()),
    "tensors with a graph": lambda i, p: list(bright(i.requires_grad_())),
    "changes the images": changes_the_images,
    "seeds everything": seeds_everything,
    "prints": prints,
    "forks": forks,
    "is slow": is_slow,
    "leaks": leaks,
    "a judgement": lambda i, p: Judgement(bright(i)),
}


@pytest.fixture(scope="module")
def well(tmp_path_factory):
    run = tmp_path_factory.mktemp("well") / "run"
    train(plan(epochs=2, scoring={}), run, lambda images, prompts: bright(images))
    return run


def same(a, b):
    """But for the reward's own name."""
    for row, other in zip(tiny.numbers(a), tiny.numbers(b), strict=True):
        mine, theirs = (
            {
                k: v
                for k, v in each.items()
                if k in ("reward_mean", "reward_std", "loss", "grad_norm")
            }
            for each in (row, other)
        )
        assert mine == theirs
    ours, theirs = tiny.weights(a), tiny.weights(b)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", HARMLESS)
def test_what_gives_numbers_changes_nothing_else(kind, well, tmp_path):
    train(plan(epochs=2, scoring={}), tmp_path / "run", HARMLESS[kind])
    same(tmp_path / "run", well)


@pytest.mark.parametrize(
    "given",
    [
        [torch.tensor(0.5, requires_grad=True)] * 2,
        [np.array(0.5)] * 2,
        [torch.tensor([0.5])] * 2,
        (np.float32(0.5), 0.5),
    ],
)
def test_lists_are_read_without_a_warning(given):
    """Of torch's, which would name no line of the reward."""
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert judged(
                lambda images, prompts: given, torch.zeros(2, 3, 4, 4), [Prompt("a cat")] * 2
            ).values.tolist() == [
                0.5,
                0.5,
            ]
    finally:
        torch.set_warn_always(False)


def test_truth_values_are_numbers(tmp_path):
    history = train(plan(), tmp_path / "run", lambda images, prompts: bright(images) > 0.5)
    assert 0 <= history[0]["reward_mean"] <= 1


class Dies:
    """At those calls, with an error; else the brightness."""

    def __init__(self, error, calls):
        self.error, self.calls, self.count, self.sizes = error, calls, count(), []
        self.__name__ = "dies"

    def __call__(self, images, prompts):
        self.sizes.append(len(images))
        if next(self.count) in self.calls:
            raise self.error
        return bright(images)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("gone"),
        TimeoutError("late"),
        type("TransportError", (Exception,), {})("cut"),
    ],
)
def test_a_failure_that_passes_is_asked_again_and_changes_nothing(error, well, tmp_path):
    reward = Dies(error, {0, 2, 3})
    train(plan(epochs=2, scoring={}), tmp_path / "run", reward)
    same(tmp_path / "run", well)
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    assert {row["attempts"] for row in rows} == {1, 4} and {row["status"] for row in rows} == {"ok"}
    assert len(reward.sizes) == 4 + 3


def fails_on(dark):
    """Of all images one at most, the darkest."""

    def fussy(images, prompts):
        if (bright(images) == dark).any():
            raise ZeroDivisionError("too dark")
        return bright(images)

    return fussy


def darkest(run):
    rows = [json.loads(line) for line in (run / "rewards.jsonl").read_text().splitlines()]
    return min(row["reward"] for row in rows if row["epoch"] == 0)


def test_one_bad_image_costs_no_other_its_reward(well, tmp_path):
    reward = fails_on(torch.tensor(darkest(well), dtype=torch.float32))
    history = train(plan(scoring={"max_failed": 0.2}), tmp_path / "run", reward)
    assert history[0]["masked_rewards"] == history[0]["masked_failed"] == 1
    with pytest.raises(
        RewardError,
        match=r"4 of 8 rewards of this epoch .*: 4 failed; scoring.max_failed .* ZeroDivisionError: too dark",
    ):
        train(plan(), tmp_path / "strict", reward)


def test_what_keeps_failing_is_masked_where_little_is_missing(tmp_path, monkeypatch):
    """After a few attempts; with nothing allowed to fail, not before the deadline."""
    monkeypatch.setattr("rediffuse.scoring.asked.LONGEST_PAUSE_SECONDS", 0.05)

    def half_down(images, prompts):
        values = bright(images)
        statuses = ["timeout" if value == values.min() else "ok" for value in values]
        return (
            Judgement(values, statuses=statuses)
            if len(values) > 1
            else Judgement(values, statuses=["timeout"])
        )

    history = train(plan(scoring={"max_failed": 0.25}), tmp_path / "run", half_down)
    assert history[0]["masked_timeout"] == 2
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    assert sorted(row["attempts"] for row in rows) == [1] * 6 + [10, 10]
    with pytest.raises(RewardError, match="returned nothing for 0.5 seconds: 1 images timed out"):
        train(plan(), tmp_path / "strict", half_down)


def test_at_the_deadline_the_few_that_are_missing_are_masked(tmp_path):
    """Two images of two batches, each of which takes most of the deadline to time out, in turn."""

    def slow_for_the_darkest(images, prompts):
        values = bright(images)
        if len(values) == 1:
            time.sleep(0.2)
            return Judgement(values, statuses=["timeout"])
        return Judgement(
            values, statuses=["timeout" if value == values.min() else "ok" for value in values]
        )

    history = train(
        plan(scoring={"max_failed": 0.25, "deadline_seconds": 0.5}),
        tmp_path / "run",
        slow_for_the_darkest,
    )
    assert history[0]["masked_timeout"] == 2


def test_an_error_that_has_passed_is_not_told_as_the_cause_of_another(tmp_path):
    calls = count()

    def first_away_then_nonsense(images, prompts):
        if next(calls) == 0:
            raise ConnectionError("nobody is there")
        return bright(images) * math.nan

    with pytest.raises(
        RewardError, match="^4 of 8 rewards .*: 4 non_finite; .* 0.05. The first: non_finite: "
    ) as error:
        train(plan(scoring={}), tmp_path / "run", first_away_then_nonsense)
    assert error.value.__cause__ is None


def test_a_hiccup_while_images_are_asked_about_one_at_a_time_costs_none(well, tmp_path):
    """The batch fails for one image; of the others, by themselves, one meets a lost connection first."""
    dark, lost = torch.tensor(darkest(well), dtype=torch.float32), []

    def fussy(images, prompts):
        if (bright(images) == dark).any():
            raise ZeroDivisionError("too dark")
        if len(images) == 1 and not lost:
            lost.append(1)
            raise ConnectionError("cut")
        return bright(images)

    history = train(plan(scoring={"max_failed": 0.2}), tmp_path / "run", fussy)
    assert lost and history[0]["masked_rewards"] == history[0]["masked_failed"] == 1


def test_what_a_run_paid_for_it_does_not_ask_again(tmp_path, well):
    """It dies in the second batch of the second epoch; resumed, it asks for that one alone."""
    with pytest.raises(RewardError):
        train(plan(epochs=2), tmp_path / "run", Dies(RewardError("out of order"), {3}))
    assert list((tmp_path / "run").glob("rewards.paid-0.jsonl"))
    again = Dies(None, set())
    resume(tmp_path / "run", reward=again)
    assert again.sizes == [4]
    same(tmp_path / "run", well)
    assert not list((tmp_path / "run").glob("rewards.paid-*"))


def test_what_was_paid_for_is_told_apart_by_the_picture_and_the_reward(tmp_path, well):
    with pytest.raises(RewardError):
        train(plan(epochs=2), tmp_path / "run", Dies(RewardError("out of order"), {3}))
    paid = tmp_path / "run" / "rewards.paid-0.jsonl"
    rows = [json.loads(line) for line in paid.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1] * 4
    others = [
        {**rows[0], "image_hash": 1},
        {**rows[1], "of": "another reward"},
        {**rows[2], "asked": "another question"},
        rows[3],
    ]
    paid.unlink()
    log.append(
        paid,
        [
            {key: value for key, value in row.items() if key != "crc32"} | {"reward": 1000.0}
            for row in others
        ],
    )
    with paid.open("a") as file:
        file.write('{"torn')
    with pytest.raises(RewardError):
        # which writes behind the torn line
        resume(tmp_path / "run", reward=Dies(RewardError("out of order"), {1}))
    again = Dies(None, set())
    resume(tmp_path / "run", reward=again)
    assert again.sizes == [4]
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    assert [row["reward"] for row in rows].count(1000.0) == 1


def test_a_reward_that_hangs_does_not_keep_the_command_from_ending(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import time\ndef hangs(images, prompts):\n    time.sleep(600)\n"
    )
    words = [
        "--reward",
        "mine.py:hangs",
        "--scoring.timeout-seconds",
        "1",
        "--scoring.deadline-seconds",
        "1",
    ]
    small = [
        "--epochs",
        "1",
        "--prompts-per-epoch",
        "2",
        "--evaluation.num-prompts",
        "1",
        "--run-dir",
        "run",
    ]
    small += ["--images-per-prompt", "1", "--micro-batch-size", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "rediffuse", "train", *words, *small],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 75, done.stderr
    assert "hangs took more than 1 seconds on 2 images" in done.stderr.replace("\n", " ")
    assert "waiting for the reward" in done.stdout


def test_a_reward_that_kills_its_process_is_kept_in_one_of_its_own(tmp_path):
    """`rediffuse serve` dies of it; the run waits for the server, then saves its state."""
    from test_serve import Served

    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
            import os, signal
            def dies(images, prompts):
                os.kill(os.getpid(), signal.SIGSEGV)
        """)
    )
    served = Served(tmp_path, "mine.py:dies")
    reward = {"name": "remote", "url": served.url, "deadline_seconds": 0.5}
    try:
        with pytest.raises(
            RewardError,
            match=r"returned nothing for 0.5 seconds: The server .* gave no answer for 0.5 seconds",
        ):
            train(plan(reward=reward, scoring={"deadline_seconds": 0.5}), tmp_path / "run")
        assert served.process.wait(5) == -11
    finally:
        with contextlib.suppress(ProcessLookupError):
            served.stop()


def test_no_thread_is_left(well):
    for _ in range(50):
        if not [
            thread
            for thread in threading.enumerate()
            if "_settle" in thread.name or "_work" in thread.name
        ]:
            return
        time.sleep(1.3)
    raise AssertionError([thread.name for thread in threading.enumerate()])


COUNTED = """
import os
from pathlib import Path

ASKED, CALLS = Path(os.environ["ASKED"]), []

def brightness(images, prompts):
    CALLS.append(1)
    if os.environ.get("RANK") == "1" and len(CALLS) >= 3:  # of this process; an epoch has two
        raise KeyError("out of order")
    with ASKED.open("a") as file:
        file.write("x" * len(images))
    return images.mean((1, 2, 3))
"""


def test_what_two_processes_paid_for_one_does_not_ask_again(tmp_path, monkeypatch):
    """The second epoch fails in one of two; resumed in one process, it asks for what that one had not scored, and equals a run
    in one process."""
    (tmp_path / "mine.py").write_text(COUNTED)
    small = {
        "epochs": 2,
        "prompts-per-epoch": 8,
        "micro-batch-size": 2,
        "evaluation.num-prompts": 1,
        "sampler.num-steps": 2,
    }
    small |= {"model": f"{tiny.FILE}:Toy", "reward": "mine.py:brightness", "images-per-prompt": 1}
    words = [f"--{key}={value}" for key, value in small.items()]

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("ASKED", "one.txt")
        cli.run(["train", *words, "--run-dir", "one"])
        patch.setenv("ASKED", "two.txt")
        failed = forked.two(tmp_path, forked.command, "train", *words, "--run-dir", "two")
        assert [process.wait() for process in failed] == [75, 75]
        assert "KeyError: 'out of order'" in failed[1].said
        before = len((tmp_path / "two.txt").read_text())
        assert 8 < before < 16
        cli.run(["resume", "two", "--trust-code"])
    assert len((tmp_path / "two.txt").read_text()) == 16
    assert [row["reward"] for row in tiny.numbers(tmp_path / "two", "rewards.jsonl")][:8] == [
        row["reward"] for row in tiny.numbers(tmp_path / "one", "rewards.jsonl")
    ][:8]
    assert not list((tmp_path / "two").glob("rewards.paid-*"))


def test_a_server_that_hangs_does_not_keep_the_command_from_ending(judge, tmp_path):
    """The questions under way have minutes left; the run's own deadline ends it."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        words = {
            "reward": "alignment",
            "reward.server": f"http://127.0.0.1:{silent.getsockname()[1]}/v1",
            "reward.vlm": "eye",
        }
        words |= {
            "reward.encoder": judge["encoder"],
            "reward.layer": 2,
            "reward.timeout-seconds": 2,
            "reward.deadline-seconds": 600,
        }
        words |= {
            "scoring.timeout-seconds": 3,
            "scoring.deadline-seconds": 2,
            "model": f"{tiny.FILE}:Toy",
            "sampler.num-steps": 2,
        }
        words |= {
            "epochs": 1,
            "prompts-per-epoch": 2,
            "evaluation.num-prompts": 1,
            "run-dir": tmp_path / "run",
        }
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "rediffuse",
            "train",
            *(f"--{key}={value}" for key, value in words.items()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 75, done.stderr
        assert "alignment took more than 3 seconds" in done.stderr.replace("\n", " ")
        assert time.monotonic() - began < 60
