import json
import time

import pytest
import tiny
import torch
from tiny import StoppedError, reward_that_dies_at

from rediffuse import Callback, begin, resume, train
from rediffuse.callbacks import keeper
from rediffuse.config.schema import from_yaml
from rediffuse.errors import ConfigError
from rediffuse.evaluation.divergence import kl_to_pretrained
from rediffuse.evaluation.pictures import tuned
from rediffuse.lookup.parts import assemble
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.rollout import Draws, collect
from rediffuse.runs import checkpoint
from rediffuse.runs.folder import RunFolder
from rediffuse.types import Prompt, Rollout, TransitionsWithMeans

pytestmark = pytest.mark.usefixtures("without_charts")

OWN_REWARDS = """
import torch

def not_red(images, prompts):
    red, green, blue = images.mean((2, 3)).unbind(1)
    return (green + blue) / 2 - red

def broken(images, prompts):
    raise ValueError("out of order")

def of_the_prompt(images, prompts):
    return torch.tensor([float("cat" in prompt.text) for prompt in prompts])
"""


@pytest.fixture
def rewards(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN_REWARDS)
    return path


def config(rewards, *held_out, **over):
    evaluation = {
        "num_prompts": 8,
        "images_per_prompt": 2,
        "held_out": [f"{rewards}:{name}" for name in held_out],
    }
    evaluation |= over.pop("evaluation", {})
    usual = {"epochs": 6, "learning_rate": 3e-2, "prompts_per_epoch": 8}
    return tiny.config(**{**usual, **over}, evaluation=evaluation)


def rows(run):
    return [json.loads(line) for line in (run / "monitor.jsonl").read_text().splitlines()]


def kept(run):
    return checkpoint.best_epoch(run / "checkpoints"), sorted(
        checkpoint.epochs(run / "checkpoints")
    )


def test_each_look_tells_rewards_and_statistics_of_the_same_pictures(rewards, tmp_path):
    few = {
        "prompts": {"name": f"{tiny.FILE}:Few"},
        "evaluation": {"num_prompts": 2, "images_per_prompt": 8},
    }
    train(config(rewards, "not_red", "of_the_prompt", **few), tmp_path / "run")
    found = rows(tmp_path / "run")
    assert [row["epoch"] for row in found] == [0, 1, 2, 3, 4, 5, 6]
    first, last = found[0], found[-1]
    assert first["statistics"].keys() == {
        "brightness", "saturation", "edge_density", "colour_entropy", "diversity", "near_identical", "distance", "kl",
    }  # fmt: skip
    assert first["statistics"]["diversity"] == pytest.approx(1)
    assert first["statistics"]["distance"] == 0 and first["statistics"]["kl"] == pytest.approx(
        0, abs=1e-4
    )
    assert last["statistics"]["distance"] > 0 and last["statistics"]["kl"] > 1e-3
    assert len(last["held_out"]["not_red"]["values"]) == 16
    assert first["held_out"]["of_the_prompt"]["mean"] == 0.5
    assert first["held_out"]["of_the_prompt"]["of_other_prompts"] == 0.5
    assert first["held_out"]["of_the_prompt"]["values"] == [1.0] * 8 + [0.0] * 8


@pytest.mark.parametrize("size", [3, 4])
def test_watching_changes_nothing_that_is_learned(size, rewards, tmp_path):
    """Also where the last micro-batch of an epoch has room for samples of an evaluation."""
    rows_of_a_pass = {"micro_batch_size": size, "epochs": 4}
    train(config(rewards, "not_red", "broken", **rows_of_a_pass), tmp_path / "watched")
    train(config(rewards, evaluation={"every": 0}, **rows_of_a_pass), tmp_path / "alone")
    assert tiny.numbers(tmp_path / "watched") == tiny.numbers(tmp_path / "alone")
    ours, theirs = tiny.weights(tmp_path / "watched"), tiny.weights(tmp_path / "alone")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def large(monkeypatch):
    """Checkpoints are taken for too large to keep one of every look."""
    monkeypatch.setattr(keeper, "SMALL_BYTES", 0)


def test_every_look_keeps_its_checkpoint_as_long_as_they_are_small(rewards, tmp_path):
    options = {"evaluation": {"every": 2}, "logging": {"keep_checkpoints": 1}, "epochs": 5}
    train(config(rewards, **options), tmp_path / "small")
    assert kept(tmp_path / "small")[1] == [2, 4, 5]


def test_large_ones_are_pruned(rewards, large, tmp_path):
    """The control of the test above."""
    options = {"evaluation": {"every": 2}, "logging": {"keep_checkpoints": 1}, "epochs": 5}
    train(config(rewards, **options), tmp_path / "large")
    # that of 4 was the best when that of 5 was saved
    assert kept(tmp_path / "large") == (
        5,
        [4, 5],
    )


def test_a_run_that_goes_too_far_is_warned_of_once_and_goes_on(rewards, large, tmp_path, capsys):
    history = train(config(rewards, "not_red"), tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert len(history) == 6
    assert said.count("over-optimised after") == 1
    assert "the held-out not_red has fallen" in said
    best, epochs = kept(tmp_path / "run")
    assert 0 < best < 5 and set(epochs) == {best, 5, 6}


def test_without_a_held_out_reward_nothing_is_marked(rewards, large, tmp_path, capsys):
    """The control of the test above."""
    train(config(rewards, "of_the_prompt"), tmp_path / "run")
    assert "over-optimised" not in capsys.readouterr().out
    assert kept(tmp_path / "run") == (6, [5, 6])


def test_it_stops_there_if_it_was_told_to_and_exports_the_best(rewards, tmp_path):
    run = tmp_path / "run"
    history = train(config(rewards, "not_red", evaluation={"on_overoptimisation": "stop"}), run)
    best, epochs = kept(run)
    assert len(history) == rows(run)[-1]["epoch"] < 6
    assert best < len(history) == max(epochs)
    assert exported(run) == best
    assert f"{best} epochs" in (run / "adapter" / "README.md").read_text()
    assert resume(run) == []  # it stands where it was stopped


def test_it_exports_the_best_at_the_end_if_it_was_told_to(rewards, tmp_path):
    run = tmp_path / "run"
    assert (
        len(train(config(rewards, "not_red", evaluation={"on_overoptimisation": "keep_best"}), run))
        == 6
    )
    assert exported(run) == kept(run)[0] < 6
    train(config(rewards, "not_red"), tmp_path / "warned")
    assert exported(tmp_path / "warned") == 6


def exported(run):
    """The checkpoint whose weights the adapter has."""
    from safetensors.torch import load_file

    adapter = load_file(run / "adapter" / tiny.ADAPTER)
    for epoch in checkpoint.epochs(run / "checkpoints"):
        weights = checkpoint.load(run / "checkpoints", str(epoch)).weights
        if all(torch.equal(weights[name], adapter[name]) for name in adapter):
            return epoch
    raise AssertionError("of no checkpoint that is there")


def test_where_the_best_is_damaged_the_last_is_exported_and_that_is_said(
    rewards, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    call_best = checkpoint.call_best

    def and_damage(folder, epoch):
        call_best(folder, epoch)
        if epoch and len(rows(run)) == 7:
            (folder / f"epoch-{epoch:05d}" / "weights.safetensors").write_bytes(b"")

    monkeypatch.setattr(checkpoint, "call_best", and_damage)
    train(config(rewards, "not_red", evaluation={"on_overoptimisation": "keep_best"}), run)
    assert "The last checkpoint is exported instead." in " ".join(capsys.readouterr().out.split())
    assert "6 epochs" in (run / "adapter" / "README.md").read_text()


def test_a_held_out_reward_that_fails_is_said_once_and_harms_nothing(rewards, tmp_path, capsys):
    train(config(rewards, "broken", "of_the_prompt", epochs=3), tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("the held-out reward broken failed") == 1
    assert "out of order" in said
    for row in rows(tmp_path / "run"):
        assert row["held_out"]["broken"]["mean"] is None
        assert row["held_out"]["of_the_prompt"]["mean"] is not None


def test_a_run_that_was_stopped_looks_the_same_as_one_that_was_not(rewards, tmp_path):
    redness = reward_that_dies_at(14)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config(rewards, "not_red"), whole)
    with pytest.raises(StoppedError):
        train(config(rewards, "not_red"), stopped, reward=redness)
    assert 1 < len(rows(stopped)) < 7
    resume(stopped, reward=redness)
    assert tiny.numbers(whole, "monitor.jsonl") == tiny.numbers(stopped, "monitor.jsonl")
    assert kept(whole) == kept(stopped)


class Noting(Callback):
    """Notes how many evaluations there are when an epoch begins, and fails once at a stage of the
    third epoch."""

    def __init__(self, stage=None):
        self.looks = []
        if stage:
            setattr(self, stage, self.fail)

    def epoch_begins(self, run):
        self.looks.append(len(rows(run.folder.path)) if run.folder.monitor.exists() else 0)

    def fail(self, run, *args):
        if run.epoch == 2:
            raise StoppedError


def test_images_sampled_along_with_an_epoch_are_those_sampled_alone(rewards, tmp_path):
    """A run that may have to stop before an epoch evaluates before it."""
    runs = {}
    for action in ("keep_best", "stop"):
        runs[action], noting = tmp_path / action, Noting()
        told = config(rewards, "of_the_prompt", evaluation={"on_overoptimisation": action})
        train(told, runs[action], callbacks=[noting])
        assert noting.looks == [n + (action == "stop") for n in range(6)]
    for name in ("monitor.jsonl", "metrics.jsonl"):
        assert tiny.numbers(runs["keep_best"], name) == tiny.numbers(runs["stop"], name)
    assert images(runs["keep_best"]) == images(runs["stop"])


def images(run):
    place = run / "samples"
    return {path.relative_to(place): path.read_bytes() for path in place.glob("**/*.png")}


@pytest.mark.parametrize(("stage", "looks"), [("sampled", 2), ("scored", 3), ("updated", 3)])
def test_a_run_that_is_killed_around_an_evaluation_makes_it_once(stage, looks, rewards, tmp_path):
    """Its evaluation may have been written when the epoch that it was sampled with is lost."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with pytest.raises(StoppedError):
        train(config(rewards, "not_red", epochs=3), killed, callbacks=[Noting(stage)])
    assert len(rows(killed)) == looks
    resume(killed)
    train(config(rewards, "not_red", epochs=3), whole)
    for name in ("monitor.jsonl", "metrics.jsonl"):
        assert tiny.numbers(killed, name) == tiny.numbers(whole, name)
    assert images(killed) == images(whole) and kept(killed) == kept(whole)


def test_an_epoch_that_is_made_again_by_hand_is_evaluated_once(rewards, tmp_path):
    with begin(config(rewards, epochs=3), tmp_path / "run", callbacks=[Noting("scored")]) as run:
        run.step(), run.step()
        with pytest.raises(StoppedError):
            run.step()
        run.callbacks = run.callbacks[:-1]
        run.step()
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [0, 1, 2, 3]


class CountsPretrained(Callback):
    """Counts how often the pretrained network takes the place of the trained one."""

    def __init__(self):
        self.times = 0

    def run_begins(self, run):
        denoiser = run.learner.policy.denoiser
        real = denoiser.using

        def using(weights):
            self.times += 1
            return real(weights)

        denoiser.using = using


def test_the_kl_asks_the_pretrained_network_alone_and_not_before_training(rewards, tmp_path):
    counts = CountsPretrained()
    train(config(rewards, epochs=2), tmp_path / "run", callbacks=[counts])
    kl = [row["statistics"]["kl"] for row in rows(tmp_path / "run")]
    assert kl[0] == 0 and kl[1] > 0 and counts.times == 2
    policy = toy_policy()
    with World.joined(4) as world:
        draws = Draws(range(4), [Prompt("a cat")] * 4, (0, "kl"))
        made = Rollout.joined(
            collect(policy, draws, tiny.limits(4), world, TransitionsWithMeans), 4
        )
        calls = []
        predict = policy.denoiser.predict
        policy.denoiser.predict = lambda x, *args: calls.append(len(x)) or predict(x, *args)
        kl_to_pretrained(policy, made, 5, world)
    assert sum(calls) == made.trajectory.log_probs.numel() and max(calls) == 5


def test_the_divergence_is_none_from_oneself_and_the_sum_of_each_step():
    policy = toy_policy()
    with World.joined(4) as world:
        draws = Draws(range(4), [Prompt("a cat")] * 4, (0, "kl"))
        made = Rollout.joined(
            collect(policy, draws, tiny.limits(2), world, TransitionsWithMeans), 4
        )
        assert kl_to_pretrained(policy, made, 5, world).abs().max() < 1e-5
        with torch.no_grad():
            for parameter in policy.denoiser.net[2].parameters():
                parameter += 0.01
        made = Rollout.joined(
            collect(policy, draws, tiny.limits(2), world, TransitionsWithMeans), 4
        )
        found = kl_to_pretrained(policy, made, 5, world)
    assert found.tolist() == pytest.approx(
        [by_hand(policy, made, row) for row in range(4)], rel=1e-4
    )


def by_hand(policy, made, row):
    total = 0.0
    for step in made.trajectory.steps.tolist():
        state = made.trajectory.path[row : row + 1, step]
        conditioning = policy.denoiser.encode([made.prompts[row]])
        with torch.no_grad():
            own = policy.act(state, torch.tensor([step]), conditioning)
            with policy.using("start"):
                theirs = policy.act(state, torch.tensor([step]), conditioning)
        laws = [
            torch.distributions.Normal(law.mean, law.std.view(-1, 1, 1, 1)) for law in (own, theirs)
        ]
        total += torch.distributions.kl_divergence(*laws).sum().item()
    return total


def toy_policy():
    from rediffuse.samplers.ddim import DDIM

    denoiser = tiny.Toy().load("cpu", 0)
    return DiffusionPolicy(denoiser, DDIM(num_steps=4).bind(denoiser.schedule))


def test_the_best_is_the_same_after_an_interruption_that_saved_one_more_checkpoint(
    rewards, tmp_path
):
    plan = {
        "epochs": 9,
        "logging": {"checkpoint_every": 4},
        "evaluation": {"on_overoptimisation": "keep_best"},
    }
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config(rewards, "of_the_prompt", **plan), whole)
    redness = reward_that_dies_at(26)
    with pytest.raises(StoppedError):
        train(config(rewards, "of_the_prompt", **plan), stopped, reward=redness)
    resume(stopped, reward=redness)
    assert tiny.numbers(whole, "monitor.jsonl") == tiny.numbers(stopped, "monitor.jsonl")
    assert kept(whole)[0] == kept(stopped)[0]
    assert exported(whole) == exported(stopped)


def test_a_run_that_goes_on_must_make_the_same_pictures(rewards, tmp_path):
    run = tmp_path / "run"
    train(config(rewards, "not_red", epochs=2), run)
    place = run / "config.yaml"
    place.write_text(place.read_text().replace("num_prompts: 8", "num_prompts: 4"))
    with pytest.raises(
        ConfigError, match="evaluation.num_prompts.*could not be compared with new ones"
    ):
        resume(run, epochs=3)
    place.write_text(place.read_text().replace("num_prompts: 4", "num_prompts: 8"))
    assert len(resume(run, epochs=3)) == 1


def test_a_held_out_reward_that_hangs_is_waited_for_once(rewards, tmp_path, capsys):
    rewards.write_text(
        rewards.read_text()
        + "\ndef hangs(images, prompts):\n    import time\n    time.sleep(3600)\n"
    )
    began = time.monotonic()
    patience = {"scoring": {"timeout_seconds": 0.5, "deadline_seconds": 0.1}}
    train(config(rewards, "hangs", "of_the_prompt", epochs=3, **patience), tmp_path / "run")
    assert time.monotonic() - began < 20
    assert "the held-out reward hangs failed" in " ".join(capsys.readouterr().out.split())
    assert [row["held_out"]["hangs"]["mean"] for row in rows(tmp_path / "run")] == [None] * 4


@pytest.mark.parametrize("features", ["[]", "lambda images: images", "lambda images: 1 / 0"])
def test_what_is_called_features_by_chance_is_not_relied_on(features, rewards, tmp_path, capsys):
    source = f"class Mine:\n    features = staticmethod({features}) if callable({features}) else {features}\n"
    rewards.write_text(
        source
        + "    def __call__(self, images, prompts):\n        return images[:, 0].mean((1, 2))\n"
    )
    train(config(rewards, "Mine", epochs=1), tmp_path / "run")
    assert "thumbnails" in " ".join(capsys.readouterr().out.split())
    assert rows(tmp_path / "run")[0]["statistics"]["diversity"] == pytest.approx(1)


def test_the_divergence_is_not_measured_where_it_is_not_wanted(rewards, tmp_path):
    train(config(rewards, epochs=1, evaluation={"kl": False}), tmp_path / "run")
    assert "kl" not in rows(tmp_path / "run")[0]["statistics"]


def test_stopping_needs_a_reward_to_go_by(rewards):
    with pytest.raises(ConfigError, match="stop needs a held-out reward"):
        config(rewards, evaluation={"on_overoptimisation": "stop"})


def test_the_page_and_the_verdict_are_there_without_the_command(rewards, tmp_path):
    train(config(rewards, "of_the_prompt"), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "verdict.json").read_text())["best"] == 6
    assert "of_the_prompt" in (tmp_path / "run" / "report.html").read_text()


def test_a_page_that_cannot_be_written_is_said_and_ends_no_run(
    rewards, tmp_path, capsys, monkeypatch
):
    from rediffuse.report import page

    monkeypatch.setattr(page, "write", lambda run: 1 / 0)
    assert len(train(config(rewards, epochs=6), tmp_path / "run")) == 6
    assert "the page could not be written: ZeroDivisionError" in " ".join(
        capsys.readouterr().out.split()
    )


def test_evaluations_with_a_sampler_of_their_own_leave_training_as_it_was(rewards, tmp_path):
    """And the divergence is that of the policy that is trained."""
    own = {"num_steps": 7, "eta": 0.0}
    train(config(rewards, epochs=2, evaluation={"sampler": own}), tmp_path / "own")
    train(config(rewards, epochs=2), tmp_path / "usual")
    assert tiny.numbers(tmp_path / "own") == tiny.numbers(tmp_path / "usual")
    grids = [(tmp_path / name / "samples/epoch-00002/grid.png") for name in ("own", "usual")]
    assert grids[0].read_bytes() != grids[1].read_bytes()
    kl = [[row["statistics"]["kl"] for row in rows(tmp_path / name)] for name in ("own", "usual")]
    assert kl[0] == pytest.approx(kl[1]) and kl[0][-1] > 1e-3
    config_of_run = from_yaml(tmp_path / "own" / "config.yaml")
    assert config_of_run.evaluation.sampler == {**config_of_run.sampler, **own}
    resume(tmp_path / "own", epochs=3)
    assert tuned(RunFolder(tmp_path / "own")).sampler.noisy == [False] * 7
    assert tuned(RunFolder(tmp_path / "usual")).sampler.noisy.count(True) == 3  # the control


def test_evaluations_may_have_another_guidance(pipeline, tmp_path):
    model = {"name": "stable_diffusion", "source": str(pipeline), "guidance_scale": 5.0}
    few = {
        "epochs": 1,
        "prompts_per_epoch": 2,
        "evaluation": {"num_prompts": 1, "images_per_prompt": 1},
    }
    for name, scale in (("own", 1.0), ("same", 5.0), ("usual", None)):
        few["evaluation"]["guidance_scale"] = scale
        train(tiny.config(model=model, **few), tmp_path / name)
    grids = {
        n: (tmp_path / n / "samples/epoch-00001/grid.png").read_bytes()
        for n in ("own", "same", "usual")
    }
    assert grids["own"] != grids["usual"] == grids["same"]
    assert tiny.numbers(tmp_path / "own") == tiny.numbers(tmp_path / "usual")


def test_guidance_is_refused_of_a_model_that_has_none(rewards, tmp_path):
    with pytest.raises(
        ConfigError, match=r"evaluation\.guidance_scale: .*has no classifier-free guidance"
    ):
        train(config(rewards, evaluation={"guidance_scale": 2}), tmp_path / "run")


def test_the_sampler_of_evaluations_is_checked_like_any(rewards):
    with pytest.raises(ConfigError, match="Did you mean 'num_steps'"):
        assemble(config(rewards, evaluation={"sampler": {"num_step": 7}}))
    with pytest.raises(ConfigError, match="no 'dim' among samplers"):
        assemble(config(rewards, evaluation={"sampler": {"name": "dim"}}))


def test_a_run_that_is_resumed_past_its_end_twice_has_the_evaluations_of_an_uninterrupted_one(
    tmp_path,
):
    """Its evaluation at the first end is not due in the longer run."""
    looks = {"every": 2, "num_prompts": 2, "images_per_prompt": 1}
    run = tmp_path / "run"
    train(tiny.config(epochs=1, evaluation=looks), run)
    assert (run / "samples" / "epoch-00001").is_dir()
    resume(run, epochs=2)
    resume(run, epochs=3)
    train(tiny.config(epochs=3, evaluation=looks), tmp_path / "straight")
    assert tiny.numbers(run, "monitor.jsonl") == tiny.numbers(
        tmp_path / "straight", "monitor.jsonl"
    )
    made = [
        sorted(p.name for p in (each / "samples").iterdir())
        for each in (run, tmp_path / "straight")
    ]
    assert made[0] == made[1]
