"""A stopped run goes on to the numbers and weights of one that was never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache

import forked
import pytest
import tiny
import torch
from tiny import StoppedError, numbers, reward_that_dies_at, weights

from rediffuse import cli, resume, train
from rediffuse.errors import CheckpointError, ConfigError, Interrupted, RewardError
from rediffuse.learning.update import Learner
from rediffuse.processes.world import World
from rediffuse.runs import checkpoint, export

pytestmark = pytest.mark.usefixtures("without_charts")

EPOCHS = 4


def assert_equal_to_the_bit(a, b):
    assert numbers(a) == numbers(b)
    assert numbers(a, "rewards.jsonl") == numbers(b, "rewards.jsonl")
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


VARIANTS = {
    "ddpo_is": {"algorithm": {"inner_epochs": 2}},
    "ddpo_sf": {"algorithm": {"name": "ddpo_sf", "advantage": "batch"}, "updates_per_epoch": 1},
    "rwr": {
        "algorithm": {"name": "rwr", "inner_epochs": 2, "inverse_temperature": 5.0},
        "ema_decay": 0.9,
    },
    "rwr_sparse": {
        "algorithm": {
            "name": "rwr_sparse",
            "inner_epochs": 2,
            "among": "all_so_far",
            "percentile": 40,
        }
    },
    "per_prompt": {
        "algorithm": {"advantage": "per_prompt", "buffer_size": 16, "min_count": 2},
        "prompts": {"name": f"{tiny.FILE}:Few"},
    },
}


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The plan and the run of a variant, which is trained once."""

    @cache
    def trained(name):
        config = tiny.config(epochs=EPOCHS, **VARIANTS[name])
        run = tmp_path_factory.mktemp(name) / "straight"
        train(config, run, reward_that_dies_at(None))
        return config, run

    return trained


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, never_stopped):
    return never_stopped(request.param)


@pytest.mark.parametrize("call", range(1, 2 * EPOCHS, 2))
def test_stop_anywhere_and_resume_is_as_if_never_stopped(variant, call, tmp_path):
    config, straight = variant
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", reward_that_dies_at(call))
    resume(tmp_path / "run", reward=reward_that_dies_at(None))
    assert_equal_to_the_bit(straight, tmp_path / "run")


def test_fp16_and_the_pretrained_model_in_lanes(pipeline, tmp_path, monkeypatch):
    """Loss scaling and an adapter that is switched off for a while: stopped and resumed, the same to the bit."""
    monkeypatch.setattr("rediffuse.processes.world.num_cores", lambda: 3)
    targets = ["to_q", "to_k", "conv1"]
    config = tiny.config(
        epochs=3,
        model={
            "name": f"{tiny.FILE}:Tiny",
            "path": str(pipeline),
            "precision": "fp16",
            "lora_targets": targets,
        },
        sampler={"num_steps": 3, "spacing": "trailing"},
        algorithm={"name": "ddpo_sf", "advantage": "batch", "kl_weight": 1.0},
        updates_per_epoch=1,
        micro_batch_size=2,
    )
    train(config, tmp_path / "straight", reward_that_dies_at(None))
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", reward_that_dies_at(6))
    resume(tmp_path / "run", reward=reward_that_dies_at(None))
    assert_equal_to_the_bit(tmp_path / "straight", tmp_path / "run")
    rows = numbers(tmp_path / "run")
    assert rows[0]["kl_to_pretrained"] < 1e-6 < rows[2]["kl_to_pretrained"]
    assert all(row["skipped_updates"] == 0 and row["grad_norm"] > 0 for row in rows)
    state = json.loads(
        (tmp_path / "run" / "checkpoints" / "epoch-00003" / "state.json").read_text()
    )
    assert state["loss_scale"]["scale"] == 2.0**16


def test_a_checkpoint_of_other_shapes_is_told_with_its_key(tmp_path):
    train(tiny.config(model={"name": f"{tiny.FILE}:Toy", "width": 8}), tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    path.write_text(path.read_text().replace("width: 8", "width: 9"))
    with pytest.raises(
        ConfigError, match=r"0.weight is \(8, 50\) there, but \(9, 50\) in this model"
    ):
        resume(tmp_path / "run", epochs=3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "name: ddpo_is",
            "name: rwr",
            "algorithm.name: 'rwr' in config.yaml, but the checkpoint is of 'ddpo_is'",
        ),
        (
            "ema_decay: null",
            "ema_decay: 0.5",
            r"average/0.weight is missing there, but \(32, 50\) in this model",
        ),
    ],
)
def test_a_checkpoint_of_another_plan_is_told_with_its_key(old, new, said, tmp_path):
    """And the configuration stays as it was, whatever else was asked."""
    train(tiny.config(), tmp_path / "run")
    path = tmp_path / "run" / "config.yaml"
    lines = path.read_text().replace(old, new).splitlines()
    plan = [
        line
        for line in lines
        if new == "ema_decay: 0.5" or not line.startswith("  ") or "clip_range" not in line
    ]
    if "rwr" in new:
        begin = plan.index("  name: rwr")
        end = next(i for i in range(begin, len(plan)) if not plan[i].startswith("  "))
        plan = plan[: begin + 1] + plan[end:]
    path.write_text("\n".join(plan) + "\n")
    with pytest.raises(ConfigError, match=said):
        resume(tmp_path / "run", epochs=9)
    assert path.read_text().splitlines() == plan


CONTROLS = ["weights", "optimizer", "state", "epoch", "seed"]


@pytest.mark.parametrize("left_out", CONTROLS)
def test_without_any_one_ingredient_the_numbers_differ(
    left_out, never_stopped, tmp_path, monkeypatch
):
    """The control: each part of a checkpoint is needed."""
    config, straight = never_stopped("per_prompt")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", reward_that_dies_at(5))
    real = checkpoint.load_newest

    def forgetful(folder):
        saved = real(folder)
        fields = {
            "weights": {"weights": {name: value + 1e-3 for name, value in saved.weights.items()}},
            "optimizer": {"optimizer": {}},
            "state": {"state": {**saved.state, "algorithm": {"statistics": {}}}},
            "epoch": {"epoch": saved.epoch - 1},
        }.get(left_out, {})
        return checkpoint.Checkpoint(**{**vars(saved), **fields})

    monkeypatch.setattr(checkpoint, "load_newest", forgetful)
    if left_out == "seed":
        path = tmp_path / "run" / "config.yaml"
        path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    resume(tmp_path / "run", reward=reward_that_dies_at(None))
    with pytest.raises(AssertionError):
        assert_equal_to_the_bit(straight, tmp_path / "run")


def test_a_longer_run_begins_like_a_shorter_one(tmp_path):
    train(tiny.config(epochs=2), tmp_path / "run")
    resume(tmp_path / "run", epochs=EPOCHS)
    train(tiny.config(epochs=EPOCHS), tmp_path / "straight")
    assert_equal_to_the_bit(tmp_path / "straight", tmp_path / "run")


def test_a_longer_run_that_is_stopped_remembers_how_long_it_was_to_be(tmp_path):
    train(tiny.config(epochs=2), tmp_path / "run", reward_that_dies_at(None))
    with pytest.raises(StoppedError):
        resume(tmp_path / "run", epochs=EPOCHS, reward=reward_that_dies_at(3))
    resume(tmp_path / "run", reward=reward_that_dies_at(None))
    assert len(numbers(tmp_path / "run")) == EPOCHS


@pytest.mark.parametrize("asked", [0, 1])
def test_a_run_cannot_be_made_shorter_than_it_is(asked, tmp_path):
    train(tiny.config(epochs=2), tmp_path / "run")
    with pytest.raises(ConfigError, match=f"{asked} requested, but 2 epochs of .* are done"):
        resume(tmp_path / "run", epochs=asked)


@pytest.mark.parametrize("asked", [2, 3])
def test_a_run_that_was_stopped_finishes_earlier_than_planned(asked, tmp_path):
    """At once, or after another epoch, to what a run of so many epochs gives."""
    train(tiny.config(epochs=asked), tmp_path / "straight", reward_that_dies_at(None))
    with pytest.raises(StoppedError):
        train(tiny.config(epochs=200), tmp_path / "run", reward_that_dies_at(5))
    assert (
        len(resume(tmp_path / "run", epochs=asked, reward=reward_that_dies_at(None))) == asked - 2
    )
    assert_equal_to_the_bit(tmp_path / "straight", tmp_path / "run")
    looks = [
        [row["epoch"] for row in numbers(tmp_path / name, "monitor.jsonl")]
        for name in ("straight", "run")
    ]
    assert looks[0] == looks[1] and looks[0][-1] == asked
    assert f"epochs: {asked}\n" in (tmp_path / "run" / "config.yaml").read_text()
    adapters = [
        (tmp_path / name / "adapter" / tiny.ADAPTER).read_bytes() for name in ("straight", "run")
    ]
    assert adapters[0] == adapters[1]
    assert all((tmp_path / "run" / name).exists() for name in ("report.html", "verdict.json"))


def test_a_reward_given_in_python_is_asked_for_again(tmp_path):
    train(tiny.config(epochs=2), tmp_path / "run", reward_that_dies_at(None))
    assert "python:redness" in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(ConfigError, match=r"rediffuse\.resume\(run, reward=…\)"):
        resume(tmp_path / "run")
    resume(tmp_path / "run", epochs=3, reward=reward_that_dies_at(None))
    assert len(numbers(tmp_path / "run")) == 3


@pytest.mark.parametrize("where", ["sampling", "learning"])
def test_an_interruption_between_checkpoints_loses_no_whole_epoch(where, tmp_path, monkeypatch):
    config = tiny.config(epochs=EPOCHS, logging={"checkpoint_every": 10})
    train(config, tmp_path / "straight", reward_that_dies_at(None))
    calls = iter(range(10**6))
    real = Learner._step

    def interrupted(*args, **options):
        if where == "learning" and next(calls) == 5:  # the second of epoch 2's two updates
            raise Interrupted(15)
        return real(*args, **options)

    monkeypatch.setattr(Learner, "_step", interrupted)
    reward = reward_that_dies_at(5 if where == "sampling" else None, RewardError("oh"))
    with pytest.raises((Interrupted, RewardError)):
        train(config, tmp_path / "run", reward)
    monkeypatch.setattr(Learner, "_step", real)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["epoch-00002"]
    resume(tmp_path / "run", reward=reward_that_dies_at(None))
    assert_equal_to_the_bit(tmp_path / "straight", tmp_path / "run")


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("checkpoint_every", [1, 10])
def test_a_stop_leaves_the_adapter_and_the_page_of_the_last_whole_epoch(
    checkpoint_every, ema_decay, tmp_path, monkeypatch, capsys
):
    """Stopped between the two updates of the third epoch, so that the weights by then are others."""
    plan = {
        "logging": {"checkpoint_every": checkpoint_every},
        "ema_decay": ema_decay,
        "updates_per_epoch": 2,
    }
    train(tiny.config(epochs=2, **plan), tmp_path / "two")
    calls, real = iter(range(10**6)), Learner._step

    def interrupted(*args, **options):
        if next(calls) == 5:
            raise Interrupted(15)
        return real(*args, **options)

    monkeypatch.setattr(Learner, "_step", interrupted)
    with pytest.raises(Interrupted):
        train(tiny.config(epochs=EPOCHS, **plan), tmp_path / "run")
    assert len(numbers(tmp_path / "run")) == 2
    adapters = [
        (tmp_path / name / "adapter" / tiny.ADAPTER).read_bytes() for name in ("two", "run")
    ]
    assert adapters[0] == adapters[1]
    assert all((tmp_path / "run" / name).exists() for name in ("report.html", "verdict.json"))
    assert "last completed epoch: 2 of 4 are done" in " ".join(capsys.readouterr().out.split())


def test_a_reward_that_fails_leaves_an_adapter_where_an_epoch_is_done(tmp_path, capsys):
    for name, call in (("none", 1), ("one", 3)):
        with pytest.raises(RewardError):
            train(
                tiny.config(epochs=EPOCHS),
                tmp_path / name,
                reward_that_dies_at(call, RewardError("oh")),
            )
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "No epoch was finished, so there is no adapter yet." in said
        and "last completed epoch: 1 of 4" in said
    )
    assert (tmp_path / "one" / "adapter" / tiny.ADAPTER).exists() and (
        tmp_path / "one" / "report.html"
    ).exists()
    assert not (tmp_path / "none" / "adapter").exists()


def test_a_stop_in_the_last_look_leaves_an_adapter(tmp_path, monkeypatch):
    """Which needs a reward no more."""
    from rediffuse.evaluation.callback import Evaluator

    real = Evaluator._look

    def interrupted(self, run, made):
        if run.epoch == run.config.epochs:
            raise Interrupted(15)
        real(self, run, made)

    monkeypatch.setattr(Evaluator, "_look", interrupted)
    with pytest.raises(Interrupted):
        train(tiny.config(), tmp_path / "run")
    assert (tmp_path / "run" / "adapter" / tiny.ADAPTER).exists() and (
        tmp_path / "run" / "report.html"
    ).exists()


def test_a_stop_after_the_last_epoch_leaves_only_the_ending_to_do(tmp_path, monkeypatch):
    def interrupted(*args):
        raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr(export, "adapter", interrupted)
        with pytest.raises(Interrupted):
            train(tiny.config(), tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()
    assert resume(tmp_path / "run") == []
    assert (tmp_path / "run" / "adapter" / tiny.ADAPTER).exists()


def test_a_damaged_checkpoint_costs_an_epoch_and_no_more(tmp_path):
    train(tiny.config(epochs=EPOCHS), tmp_path / "straight")
    train(tiny.config(epochs=EPOCHS), tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    (newest / "weights.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="Falling back"):
        resume(tmp_path / "run")
    assert_equal_to_the_bit(tmp_path / "straight", tmp_path / "run")
    assert list((tmp_path / "run" / "checkpoints").glob("damaged-*"))


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(tmp_path):
    train(tiny.config(epochs=EPOCHS), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("*/weights.safetensors"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(CheckpointError):
        resume(tmp_path / "run")


FLAGS = {
    "epochs": 6,
    "prompts-per-epoch": 8,
    "micro-batch-size": 4,
    "model": f"{tiny.FILE}:Tiny",
    "model.train": "lora",
    "sampler.num-steps": 4,
    "reward": "jpeg_incompressibility",
    "evaluation.every": 0,
    "evaluation.num-prompts": 1,
}


def words_of(run, pipeline, **over):
    flags = (
        word
        for key, value in {**FLAGS, "model.path": pipeline, **over}.items()
        for word in (f"--{key}", str(value))
    )
    return ["train", "--run-dir", str(run), *flags]


def wait_for(path, process, seconds=120):
    end = time.time() + seconds
    while not path.exists():
        assert process.wait(0) is None, process.said
        assert time.time() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def straight(pipeline, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    cli.run(words_of(run, pipeline))
    return run


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_and_resume(number, straight, pipeline, tmp_path):
    """The command itself: exit 143 and 130 on SIGTERM and Ctrl-C; equal numbers and equal adapter bytes after any."""
    run = tmp_path / "run"
    process = forked.Process(tmp_path, forked.command, *words_of(run, pipeline))
    wait_for(run / "checkpoints" / "epoch-00002", process)
    time.sleep(0.1)
    os.kill(process.pid, number)
    assert process.wait(10) == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert "Traceback" not in process.said
    assert number == signal.SIGKILL or "rediffuse resume" in process.said
    assert len(numbers(run)) < FLAGS["epochs"]
    cli.run(["resume", str(run), "--trust-code"])
    assert_equal_to_the_bit(straight, run)
    adapter = "adapter/pytorch_lora_weights.safetensors"
    assert (run / adapter).read_bytes() == (straight / adapter).read_bytes()


SMOOTH = {"reward": "redness", "epochs": 2}


@pytest.fixture(scope="module")
def smooth(pipeline, tmp_path_factory):
    """A reward without steps: JPEG sizes jump by bytes where an image moves by a rounding error."""
    run = tmp_path_factory.mktemp("smooth") / "run"
    cli.run(words_of(run, pipeline, **SMOOTH))
    return run


def assert_equal_within_float_tolerance(a, b):
    ours, theirs = numbers(a, "rewards.jsonl"), numbers(b, "rewards.jsonl")
    assert [(row["index"], row["prompt"]) for row in ours] == [
        (row["index"], row["prompt"]) for row in theirs
    ]
    assert [row["reward"] for row in ours] == pytest.approx(
        [row["reward"] for row in theirs], abs=1e-5
    )
    moved = [
        torch.cat([value.flatten() for name, value in weights(run).items() if "lora_B" in name])
        for run in (a, b)
    ]
    assert moved[0].norm() > 0.01  # lora_B starts at zero: all of it was learned
    assert (moved[0] - moved[1]).norm() < 1e-2 * moved[0].norm()


def test_another_micro_batch_gives_the_same(smooth, pipeline, tmp_path):
    cli.run(words_of(tmp_path / "run", pipeline, **SMOOTH, **{"micro-batch-size": 3}))
    assert_equal_within_float_tolerance(smooth, tmp_path / "run")


def test_two_processes_equal_one(smooth, pipeline, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    words = words_of(tmp_path / "run", pipeline, **SMOOTH)
    subprocess.run([sys.executable, *launcher, "-m", "rediffuse", *words], check=True)
    assert_equal_within_float_tolerance(smooth, tmp_path / "run")


def test_another_seed_is_seen(smooth, pipeline, tmp_path):
    """The control of the two tests above."""
    cli.run(words_of(tmp_path / "run", pipeline, **SMOOTH, seed=1))
    with pytest.raises(AssertionError):
        assert_equal_within_float_tolerance(smooth, tmp_path / "run")


def unshared(*words):
    """The command, whose processes keep their gradients for themselves."""
    real = World.summed
    own = lambda tensors: tensors[0].dtype == torch.float32 and len(tensors) > 1  # noqa: E731
    World.summed = lambda self, tensors: list(tensors) if own(tensors) else real(self, tensors)
    forked.command(*words)


def test_processes_that_do_not_share_their_gradients_are_seen(smooth, pipeline, tmp_path):
    """Another control: two processes, each with its own half of the gradient."""
    processes = forked.two(tmp_path, unshared, *words_of(tmp_path / "run", pipeline, **SMOOTH))
    assert [process.wait() for process in processes] == [0, 0]
    with pytest.raises(AssertionError):
        assert_equal_within_float_tolerance(smooth, tmp_path / "run")
