"""What callbacks see and may do, and runs whose epochs are made by hand."""

import json
import os
from pathlib import Path

import forked
import pytest
import tiny
import torch
from tiny import numbers, weights

import rediffuse
from rediffuse import Callback, begin, reopen, resume, train
from rediffuse.errors import ConfigError, Interrupted, RewardError
from rediffuse.rollout import Draws, sampled
from rediffuse.types import Prompt, Rollout

pytestmark = pytest.mark.usefixtures("without_charts")


class Told(Callback):
    """Notes each call with the number of whole epochs at that time."""

    def __init__(self):
        self.calls = []

    def note(self, name, run):
        self.calls.append((name, run.epoch))

    def run_begins(self, run):
        self.note("run_begins", run)

    def epoch_begins(self, run):
        self.note("epoch_begins", run)

    def sampled(self, run, batch):
        assert batch.samples.shape == (4, 3, 4, 4)
        self.note("sampled", run)

    def scored(self, run, rollout, scores):
        assert len(rollout.prompts) == len(scores.rewards) == 8
        self.note("scored", run)

    def updated(self, run, learned):
        assert learned["trained_samples"] == 8
        self.note("updated", run)

    def epoch_ends(self, run, epoch):
        assert epoch.number == run.epoch - 1 == epoch.metrics["epoch"]
        self.note("epoch_ends", run)

    def run_ends(self, run, error):
        self.note("run_ends" if error is None else f"run_ends: {type(error).__name__}", run)


def an_epoch(number):
    before = ["epoch_begins", "sampled", "sampled", "scored", "updated"]
    return [*((name, number) for name in before), ("epoch_ends", number + 1)]


def test_the_calls_come_in_order(tmp_path):
    told = Told()
    train(tiny.config(), tmp_path / "run", callbacks=[told])
    assert told.calls == [("run_begins", 0), *an_epoch(0), *an_epoch(1), ("run_ends", 2)]
    told = Told()
    resume(tmp_path / "run", 3, callbacks=[told])
    assert told.calls == [("run_begins", 2), *an_epoch(2), ("run_ends", 3)]


def test_callbacks_are_called_in_the_order_of_their_list_and_after_the_files_are_written(tmp_path):
    seen = []

    class Named(Callback):
        def __init__(self, name):
            self.name = name

        def epoch_ends(self, run, epoch):
            seen.append(
                (
                    self.name,
                    len(numbers(run.folder.path)),
                    (run.folder.checkpoints / f"epoch-{run.epoch:05d}").is_dir(),
                )
            )

        def run_ends(self, run, error):
            seen.append(
                (
                    self.name,
                    (run.folder.adapter / tiny.ADAPTER).exists(),
                    run.folder.report.exists(),
                )
            )

    train(tiny.config(epochs=1), tmp_path / "run", callbacks=[Named("a"), Named("b")])
    assert seen == [("a", 1, True), ("b", 1, True), ("a", True, True), ("b", True, True)]


def test_callbacks_change_no_number(tmp_path):
    train(tiny.config(), tmp_path / "without")
    train(tiny.config(), tmp_path / "with", callbacks=[Told()])
    assert_equal_to_the_bit(tmp_path / "without", tmp_path / "with")


def assert_equal_to_the_bit(a, b):
    for name in ("metrics.jsonl", "rewards.jsonl", "monitor.jsonl"):
        assert numbers(a, name) == numbers(b, name)
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (a / "adapter" / tiny.ADAPTER).read_bytes() == (
        b / "adapter" / tiny.ADAPTER
    ).read_bytes()


HOOKS = ["run_begins", "epoch_begins", "sampled", "scored", "updated", "epoch_ends", "run_ends"]


def failing(hook, error):
    class Failing(Callback):
        pass

    def fail(self, *args):
        raise error

    setattr(Failing, hook, fail)
    return Failing()


@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_in_a_callback_ends_the_run(hook, tmp_path):
    before, after = Told(), Told()
    with pytest.raises(ZeroDivisionError, match="mine"):
        train(
            tiny.config(),
            tmp_path / "run",
            callbacks=[before, failing(hook, ZeroDivisionError("mine")), after],
        )
    assert before.calls[-1][0] == (
        "run_ends" if hook == "run_ends" else "run_ends: ZeroDivisionError"
    )
    assert (
        not after.calls
        if hook == "run_begins"
        else after.calls[-1][0] == "run_ends: ZeroDivisionError"
    )
    # nothing is exported after a bug
    assert ((tmp_path / "run" / "adapter").exists()) == (hook == "run_ends")
    # nor is a folder without an epoch left
    assert (tmp_path / "run").exists() == (hook in ("epoch_ends", "run_ends"))


@pytest.mark.parametrize("hook", ["sampled", "scored", "epoch_ends"])
@pytest.mark.parametrize(
    "error", [RewardError("no quota"), Interrupted(15)], ids=["reward", "signal"]
)
def test_after_an_error_that_may_pass_the_run_is_saved_and_resumes_to_the_same_numbers(
    hook, error, tmp_path
):
    class Once(Callback):
        pass

    def fail(self, run, *args):
        if run.epoch == 1:
            raise error

    setattr(Once, hook, fail)
    plan = {"epochs": 3, "logging": {"checkpoint_every": 10}}
    with pytest.raises(type(error)):
        train(tiny.config(**plan), tmp_path / "run", callbacks=[Once()])
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("epoch-*")] == [
        "epoch-00001"
    ]
    assert (tmp_path / "run" / "adapter" / tiny.ADAPTER).exists()
    resume(tmp_path / "run")
    train(tiny.config(**plan), tmp_path / "straight")
    assert_equal_to_the_bit(tmp_path / "straight", tmp_path / "run")


class StopAfter(Callback):
    """Stops the run when so many epochs are done, at the end of one or at the begin of the next."""

    def __init__(self, epochs, hook):
        setattr(self, hook, lambda run, *args: run.stop() if run.epoch == epochs else None)


@pytest.mark.parametrize("hook", ["epoch_begins", "scored", "epoch_ends"])
def test_a_callback_can_stop_the_run_which_then_ends_as_a_whole_one(hook, tmp_path):
    # one that stops in the middle of an epoch lets it become whole
    told, epochs = (
        Told(),
        1 if hook == "scored" else 2,
    )
    plan = {
        "logging": {"checkpoint_every": 10},
        "evaluation": {"every": 0, "num_prompts": 2, "images_per_prompt": 1},
    }
    rows = train(
        tiny.config(epochs=4, **plan), tmp_path / "run", callbacks=[StopAfter(epochs, hook), told]
    )
    assert len(rows) == 2 and told.calls[-1] == ("run_ends", 2)
    assert (("epoch_begins", 2) in told.calls) == (hook == "epoch_begins")
    train(tiny.config(epochs=2, **plan), tmp_path / "two")
    assert_equal_to_the_bit(tmp_path / "two", tmp_path / "run")
    resume(tmp_path / "run")
    train(tiny.config(epochs=4, **plan), tmp_path / "four")
    ours, theirs = weights(tmp_path / "run"), weights(tmp_path / "four")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_epochs_made_by_hand_give_the_numbers_of_train(tmp_path):
    train(tiny.config(epochs=3), tmp_path / "straight")
    with begin(tiny.config(epochs=3), tmp_path / "run") as run:
        assert isinstance(run, rediffuse.Run)
        epochs = [run.step(), run.step()]
        rows = numbers(tmp_path / "run")
    assert numbers(tmp_path / "straight")[:2] == rows
    for number, epoch in enumerate(epochs):
        assert epoch.number == number and len(epoch.prompts) == 8
        assert epoch.rewards.mean().item() == epoch.metrics["reward_mean"]
        assert epoch.advantages.mean().abs() < 1e-6 < epoch.advantages.std()
        # the last of the four steps draws nothing
        assert epoch.rollout.trajectory.log_probs.shape == (
            8,
            3,
        )
    assert (tmp_path / "run" / "adapter" / tiny.ADAPTER).exists()
    with reopen(tmp_path / "run") as run:
        assert run.epoch == 2
        assert run.step().number == 2
        assert run.step() is None
    assert numbers(tmp_path / "straight") == numbers(tmp_path / "run")
    ours, theirs = weights(tmp_path / "straight"), weights(tmp_path / "run")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_left_early_by_hand_is_saved(tmp_path):
    plan = {"epochs": 9, "logging": {"checkpoint_every": 10}}
    with begin(tiny.config(**plan), tmp_path / "run") as run:
        run.step()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("epoch-*")] == [
        "epoch-00001"
    ]
    assert [row["epoch"] for row in numbers(tmp_path / "run", "monitor.jsonl")] == [0, 1]


@pytest.mark.parametrize("given", [print, Told])
def test_what_is_no_callback_is_refused_before_there_is_a_folder(given, tmp_path):
    with pytest.raises(
        ConfigError, match=r"is not a callback. Derive a class from rediffuse\.Callback"
    ):
        train(tiny.config(), tmp_path / "run", callbacks=[given])
    assert not (tmp_path / "run").exists()


class Noted(Callback):
    """What its process saw; the second one stops the run after two epochs."""

    def __init__(self):
        self.calls = []

    def scored(self, run, rollout, scores):
        self.calls.append(["scored", len(rollout.prompts), len(scores.rewards)])

    def epoch_ends(self, run, epoch):
        self.calls.append(["epoch_ends", run.epoch])
        if run.epoch == 2 and os.environ["RANK"] == "1":
            run.stop()

    def run_ends(self, run, error):
        self.calls.append(["run_ends", str(error)])


def noting():
    noted = Noted()
    rows = train(tiny.config(epochs=4, logging={"checkpoint_every": 10}), "run", callbacks=[noted])
    Path(f"calls-{os.environ['RANK']}.json").write_text(json.dumps([*noted.calls, len(rows)]))


def test_every_process_calls_its_callbacks_and_one_can_stop_all(tmp_path):
    processes = forked.two(tmp_path, noting)
    assert [process.wait() for process in processes] == [0, 0], [
        process.said for process in processes
    ]
    for rank in (0, 1):
        calls = json.loads((tmp_path / f"calls-{rank}.json").read_text())
        scored = ["scored", 4, 8]
        assert calls == [
            scored,
            ["epoch_ends", 1],
            scored,
            ["epoch_ends", 2],
            ["run_ends", "None"],
            2,
        ]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("epoch-*")] == [
        "epoch-00002"
    ]


class DrawsAlso(Callback):
    """Wants five more samples from every epoch's batches."""

    def __init__(self):
        self.batches, self.received, self.shown = 0, [], []

    def run_begins(self, run):
        self.policy = run.learner.policy
        predict = self.policy.denoiser.predict

        def counted(*args):
            self.batches += 1
            return predict(*args)

        self.policy.denoiser.predict = counted

    def epoch_begins(self, run):
        self.received.append([])
        draws = Draws(range(5), [Prompt("a dog")] * 5, (7, "also"))
        run.draw_also(draws, self.received[-1].append)
        if run.epoch == 0:
            self.batches, self.alone = 0, sampled(self.policy, draws)
            self.batches = 0

    def sampled(self, run, batch):
        self.shown.append(len(batch.prompts))

    def scored(self, run, rollout, scores):
        self.while_sampling = self.batches


@pytest.mark.parametrize(("size", "num_batches"), [(3, 5), (4, 4), (8, 2), (13, 2)])
def test_a_callback_may_draw_more_samples_along_with_an_epoch(size, num_batches, tmp_path):
    """Its samples are those that it would draw alone, nothing is learned from them, and they change no bit of the run."""
    also = DrawsAlso()
    config = tiny.config(micro_batch_size=size, epochs=1, evaluation={"every": 0, "kl": False})
    train(config, tmp_path / "run", callbacks=[also])
    train(config, tmp_path / "usual")
    (parts,) = also.received
    together = Rollout.joined(parts, 5)
    torch.testing.assert_close(together.samples, also.alone.samples)
    assert together.indices.tolist() == list(range(5)) and together.prompts[0].text == "a dog"
    assert sum(also.shown) == 8
    # of four steps each; the evaluation before training has one of its own
    assert also.while_sampling == 4 * (num_batches + 1)
    usual, row = tiny.numbers(tmp_path / "usual")[0], tiny.numbers(tmp_path / "run")[0]
    assert row["reward_queries"] == 8 and row == usual
    ours, theirs = tiny.weights(tmp_path / "run"), tiny.weights(tmp_path / "usual")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
