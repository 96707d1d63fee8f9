"""Samples that are not finite are masked, counted and explained; none is judged or learned from."""

import dataclasses
import json
import math

import pytest
import tiny
import torch
from PIL import Image

from rediffuse import resume, train
from rediffuse.errors import ConfigError, NonFiniteError
from rediffuse.evaluation import monitor
from rediffuse.evaluation.pictures import before_and_after
from rediffuse.evaluation.suites import Question, evaluate
from rediffuse.evaluation.table import suite_table
from rediffuse.faults import told, traced
from rediffuse.images import drawable, picture, pixels
from rediffuse.maths import appearance
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.report.tables import figures
from rediffuse.rollout import Draws, collect, sampled
from rediffuse.runs import checkpoint, log
from rediffuse.runs.folder import existing
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import CleanSamples, EncodedSamples, Prompt, Rollout, Transitions
from rediffuse.verdict import verdict

pytestmark = pytest.mark.usefixtures("without_charts")

KINDS = {
    "ddpo_is": {"algorithm": {"name": "ddpo_is", "advantage": "batch", "clip_range": 0.1}},
    "rwr": {"algorithm": {"name": "rwr", "inverse_temperature": 5.0, "inner_epochs": 2}},
    "rwr on images": {
        "algorithm": {
            "name": "rwr",
            "inverse_temperature": 5.0,
            "inner_epochs": 2,
            "learns_from": "samples",
        }
    },
}


def sick(place="decoder", **options):
    return {"name": f"{tiny.FILE}:Sick", "place": place, **options}


def config(model, **over):
    usual = {
        "model": model,
        "scoring": {"max_failed": 0.7},
        "prompts_per_epoch": 8,
        "evaluation": {"every": 0},
    }
    return tiny.config(**{**usual, **over})


def finite_redness(images, prompts):
    assert images.isfinite().all()
    red, green, blue = images.mean((2, 3)).unbind(1)
    return red - (green + blue) / 2


def drawn(place, keep=Transitions, steps=None, **options):
    denoiser = tiny.Sick(place=place, **options).load("cpu", 0)
    policy = DiffusionPolicy(denoiser, steps or DDIM(num_steps=3).bind(denoiser.schedule))
    draws = Draws(range(12), [Prompt("a cat"), Prompt("a dog!")] * 6, (3, 0, "noise"))
    return Rollout.joined(collect(policy, draws, tiny.limits(5), World(lanes=1), keep), 12)


@pytest.mark.parametrize(
    ("place", "keep", "options", "said"),
    [
        ("decoder", CleanSamples, {}, {"decoder: NaN in fp16"}),
        ("decoder", Transitions, {"value": math.inf}, {"decoder: infinite in fp16"}),
        ("encoder", EncodedSamples, {"above": 0.1}, {"encoder: NaN in fp16"}),
        (
            "network",
            Transitions,
            {"above": 1.0},
            {f"network: NaN in fp16 at step {n} of 3" for n in (1, 2, 3)},
        ),
        (
            "network",
            CleanSamples,
            {"value": -math.inf},
            {f"network: infinite in fp16 at step {n} of 3" for n in (1, 2, 3)},
        ),
        ("text encoder", CleanSamples, {}, {"text encoder: NaN in fp16"}),
    ],
)
def test_a_fault_is_told_with_its_place_its_step_and_its_precision(place, keep, options, said):
    rollout = drawn(place, keep, **options)
    found = {fault for fault in rollout.faults if fault}
    assert found and found <= said
    assert 0 < len(rollout.whole) < 12
    assert (
        rollout.samples[rollout.whole].isfinite().all()
        and rollout.trajectory.path[rollout.whole].isfinite().all()
    )


def test_a_model_that_is_well_has_no_fault():
    """The control of the test above."""
    rollout = drawn("nowhere")
    assert list(rollout.faults) == [""] * 12 and rollout.whole == list(range(12))


class Overflowing:
    """A sampler's steps whose second is wrong: in its mean, or in a deviation of 0, which has no likelihood."""

    def __init__(self, steps, what):
        self._steps, self.what, self.noisy, self.times = steps, what, steps.noisy, steps.times

    def step(self, output, state, step):
        law = self._steps.step(output, state, step)
        if step[0] == 1:
            mean = law.mean * (math.inf if self.what == "mean" else 1)
            std = law.std * (0 if self.what == "std" else 1)
            return dataclasses.replace(law, mean=mean, std=std)
        return law


@pytest.mark.parametrize(("what", "place"), [("mean", "latents"), ("std", "log-probability")])
def test_the_arithmetic_of_a_step_is_told_from_the_network(what, place):
    schedule = tiny.ToyDenoiser.schedule
    steps = Overflowing(DDIM(num_steps=3).bind(schedule), what)
    assert all(
        fault.startswith(f"{place}: ") and "at step 2 of 3" in fault
        for fault in drawn("nowhere", steps=steps).faults
    )
    if what == "std":  # who learns from no likelihood needs none
        assert not any(drawn("nowhere", CleanSamples, steps=steps).faults)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_is_masked_counted_and_never_judged_or_learned_from(kind, tmp_path):
    run = tmp_path / "run"
    history = train(
        config(sick("encoder" if "images" in kind else "decoder", above=0.1), **KINDS[kind]),
        run,
        finite_redness,
    )
    rows = log.read(run / "rewards.jsonl")
    broken = [row for row in rows if row["status"] == "broken_sample"]
    assert broken and all(row["reward"] is None and row["attempts"] == 0 for row in broken)
    assert all("NaN in fp16" in row["notes"]["broken_sample"] for row in broken)
    assert all(
        "notes" not in row and row["reward"] is not None for row in rows if row["status"] == "ok"
    )
    assert (
        sum(row["masked_rewards"] for row in history)
        == sum(row["masked_broken_sample"] for row in history)
        == len(broken)
    )
    place = "encoder" if "images" in kind else "decoder"
    assert sum(row[f"broken_{place}"] for row in history) == len(broken)
    assert all(math.isfinite(row["reward_mean"]) and row["skipped_updates"] == 0 for row in history)
    assert all(value.isfinite().all() for value in tiny.weights(run).values())


def test_it_is_learned_as_if_the_rewards_of_those_samples_had_been_missing(tmp_path):
    """To the bit: of a decoder that is well and a reward that says nothing of the same samples."""
    above = 0.5

    def silent(images, prompts):
        values = finite_redness(images, prompts)
        return values.masked_fill(images.logit().flatten(1)[:, 0] > above, math.nan)

    train(config(sick(above=above)), tmp_path / "broken", finite_redness)
    train(config(sick("nowhere")), tmp_path / "silent", silent)
    ours, theirs = tiny.weights(tmp_path / "broken"), tiny.weights(tmp_path / "silent")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    statuses = [
        [row["status"] for row in log.read(tmp_path / name / "rewards.jsonl")]
        for name in ("broken", "silent")
    ]
    assert statuses[0] == [
        "broken_sample" if status == "non_finite" else status for status in statuses[1]
    ]


def test_the_page_and_the_verdict_name_the_decoder_and_not_the_reward(tmp_path):
    run = tmp_path / "run"
    over = {
        "epochs": 4,
        "model": sick(above=0.8),
        "scoring": {"max_failed": 0.7},
        "evaluation": {"num_prompts": 2},
    }
    train(tiny.config(**over), run, finite_redness)
    found = verdict.of_run(existing(run))
    assert "broken" in {finding.rule for finding in found.findings} and "masked" not in {
        f.rule for f in found.findings
    }
    assert found.suggestion == "Check the weights of the decoder for numbers that are not finite."
    said = {**json.loads((run / "verdict.json").read_text())}["suggestion"]
    assert said == found.suggestion
    assert any(
        "broken sample" in figure.words for figure in figures(log.read(run / "metrics.jsonl"), 4)
    )
    assert "broken sample" in (run / "report.html").read_text()


def test_the_suggestion_goes_by_the_place_and_the_precision():
    rows = [{"epoch": i, "reward_mean": i, "reward_std": 1, "reward_queries": 100 * (i + 1), "masked_rewards": 5,
             "masked_broken_sample": 5, "broken_decoder": 4, "broken_network": 1} for i in range(5)]  # fmt: skip
    given = {
        "learning_rate": 1,
        "epochs": 5,
        "prompts_per_epoch": 10,
        "images_per_prompt": 10,
        "reward": {"name": "redness"},
    }

    def suggested(precision, rows=rows):
        return verdict.conclude(
            verdict.Evidence({**given, "model": {"precision": precision}}, rows)
        ).suggestion

    assert suggested("fp16") == "Set model.precision to bf16 or fp32."
    assert suggested("bf16") == "Set model.precision to fp32."
    # the control: rewards that failed
    failed = [{**row, "masked_broken_sample": 0} for row in rows]
    assert suggested("fp16", failed).startswith("Fix the reward")


def test_too_many_broken_samples_end_the_run_with_their_cause(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(NonFiniteError) as raised:
        train(config(sick(above=-9.0)), run, finite_redness)
    said = str(raised.value)
    assert raised.value.exit_code == 2
    assert (
        "broken_sample; scoring.max_failed allows a share of 0.7. The decoder gave NaN in fp16 ("
        in said
    )
    assert "Set model.precision to bf16 or fp32." in said and "fix the reward" not in said
    assert checkpoint.epochs(run / "checkpoints") == [0]


def test_the_commonest_cause_is_told():
    assert told(["decoder: NaN in bf16"] * 2 + ["network: NaN in bf16 at step 1 of 3"]) == (
        "The decoder gave NaN in bf16 (2 samples). Set model.precision to fp32."
    )
    assert "sampler.num_quiet_steps" in told(["log-probability: infinite at step 3 of 3"])


def test_the_first_place_that_is_not_finite_counts():
    one, two = torch.tensor([1.0, math.nan, 2.0]), torch.tensor([math.inf, math.inf, 3.0])
    assert traced([("network", "at step 1 of 2", one), ("decoder", "", two)]) == [
        "decoder: infinite", "network: NaN at step 1 of 2", "",
    ]  # fmt: skip


def test_a_picture_that_is_not_finite_is_crossed_out_and_told(tmp_path, capsys):
    run = tmp_path / "run"
    looks = {"num_prompts": 6, "images_per_prompt": 2, "held_out": [f"{tiny.FILE}:redness_2"]}
    train(config(sick(above=0.1), evaluation=looks), run, finite_redness)
    rows = log.read(run / "monitor.jsonl")
    broken = {int(number) for number in rows[0]["broken"]}
    assert 0 < len(broken) < 12
    assert (
        f"{len(broken)} of 12 images are not finite and crossed out. The decoder gave"
        in " ".join(capsys.readouterr().out.split())
    )
    for row in rows:
        assert all(value is not None for value in row["statistics"].values())
        values = row["held_out"]["redness_2"]["values"]
        assert {i for i, value in enumerate(values) if value is None} == {
            int(number) for number in row["broken"]
        }
    assert rows[0]["statistics"]["distance"] == 0
    for number in range(12):
        with Image.open(run / "samples" / "epoch-00000" / f"{number:03d}.png") as picture:
            assert (picture.getpixel((0, 0)) == (255, 0, 255)) == (number in broken)


def test_a_look_at_which_nothing_is_finite_tells_no_statistics_and_goes_on(tmp_path, monkeypatch):
    run = tmp_path / "run"
    real = monitor.Monitor.look

    def all_broken(self, epoch, pictures, trajectories):
        way = dataclasses.replace(
            pictures.trajectory, faults=["decoder: NaN in fp16"] * len(pictures.prompts)
        )
        nothing = torch.full_like(pictures.samples, math.nan)
        return real(
            self,
            epoch,
            dataclasses.replace(pictures, trajectory=way, samples=nothing)
            if epoch != 1
            else pictures,
            trajectories if epoch == 1 else None,
        )

    monkeypatch.setattr(monitor.Monitor, "look", all_broken)
    looks = {"num_prompts": 2, "held_out": [f"{tiny.FILE}:redness_2"]}
    train(config({"name": f"{tiny.FILE}:Toy"}, evaluation=looks), run, finite_redness)
    first, second, last = log.read(run / "monitor.jsonl")
    assert (
        first["statistics"] == last["statistics"] == {"kl": None}
        and first["held_out"]["redness_2"]["mean"] is None
    )
    assert second["statistics"]["brightness"] is not None and "distance" not in second["statistics"]
    found = verdict.of_run(existing(run))
    assert "2 of the fixed images were not finite" in " ".join(
        finding.text for finding in found.findings
    )
    assert (run / "report.html").is_file()


def test_nothing_can_be_told_of_a_picture_that_is_not_finite():
    images = torch.rand(2, 3, 4, 4)
    images[1, 0, 1, 1] = math.nan
    for statistic in (
        appearance.brightness,
        appearance.saturation,
        appearance.edge_density,
        appearance.colour_entropy,
    ):
        assert statistic(images).isnan().tolist() == [False, True]
        assert torch.equal(statistic(images[:1]), statistic(images)[:1])
    assert picture(images[1]).getpixel((0, 0)) == (255, 0, 255)


def test_pictures_that_are_finite_are_drawn_as_they_are():
    images = torch.rand(3, 3, 4, 4)
    assert drawable(images) is images
    with pytest.raises(ValueError, match="not finite"):
        pixels(torch.full((1, 3, 4, 4), math.nan))


def test_sample_and_evaluate_tell_what_is_not_finite(tmp_path):
    run = tmp_path / "run"
    train(config(sick(above=1.0)), run, finite_redness)
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("above: 1.0", "above: -9.0"))
    with pytest.warns(
        UserWarning,
        match=r"2 of 2 images are not finite and crossed out. The decoder gave NaN in fp16",
    ):
        shown = before_and_after(run, "a fox", 3)
    with Image.open(shown) as picture:
        assert picture.getpixel((0, 0)) == (255, 0, 255)
    path.write_text(path.read_text().replace("above: -9.0", "above: 0.5"))
    found = evaluate(
        run, Question(suites=["own"], rewards=["redness"], num_prompts=4, images_per_prompt=2)
    )
    (suite,) = found["suites"]
    assert suite["broken"]["before"] > 0 and "The decoder gave NaN" in suite["broken"]["cause"]
    assert suite["rewards"]["redness"]["num_images"] < suite["num_images"]
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as shown:
        console.print(suite_table(found))
    assert "Not finite: " in shown.get()


def test_steps_that_would_divide_by_zero_are_refused_before_the_run_begins():
    schedule = dataclasses.replace(
        tiny.ToyDenoiser.schedule,
        alpha_bar=torch.cat([tiny.ToyDenoiser.schedule.alpha_bar[:-1], torch.zeros(1)]),
    )
    with pytest.raises(
        ConfigError, match="every sample would be NaN. Use --sampler.spacing leading"
    ):
        DDIM(num_steps=4, spacing="trailing").bind(schedule)
    DDIM(num_steps=4, spacing="leading").bind(schedule)
    DDIM(num_steps=4, spacing="trailing").bind(
        dataclasses.replace(schedule, prediction="v_prediction")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_learning_rate_that_blows_the_weights_up_ends_the_run_and_not_its_folder(kind, tmp_path):
    run = tmp_path / "run"
    good = {
        **KINDS[kind],
        "model": {"name": f"{tiny.FILE}:Toy"},
        "epochs": 2,
        "learning_rate": 1e-3,
        "reward": {"name": "redness"},
    }
    train(config(**good), run)
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 1.0e+20"))
    with pytest.raises(
        NonFiniteError, match=r"The learning rate, 1e\+20, may be too high. The run is saved"
    ) as raised:
        resume(run, epochs=4)
    assert raised.value.exit_code == 2
    assert max(checkpoint.epochs(run / "checkpoints")) == 2
    assert all(value.isfinite().all() for value in tiny.weights(run).values())
    path.write_text(path.read_text().replace("1.0e+20", "0.001").replace("1e+20", "0.001"))
    history = resume(run, epochs=4)
    assert [row["epoch"] for row in history] == [2, 3]
    straight = tmp_path / "straight"
    train(config(**{**good, "epochs": 4}), straight)
    ours, theirs = tiny.weights(run), tiny.weights(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_three_updates_in_a_row_without_a_finite_gradient_end_the_run(tmp_path, monkeypatch):
    run = tmp_path / "run"
    real = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: tuple(each * math.nan for each in real(*a, **k))
    )
    with pytest.raises(
        NonFiniteError, match="3 updates in a row were skipped: the gradient is not finite"
    ):
        train(config({"name": f"{tiny.FILE}:Toy"}, epochs=4), run)
    assert log.read(run / "metrics.jsonl")[0]["skipped_updates"] == 2
    assert checkpoint.epochs(run / "checkpoints") == [1]


def test_a_state_that_is_not_finite_is_neither_saved_nor_loaded(tmp_path):
    good = checkpoint.Checkpoint(1, {"a": torch.ones(2)}, {"exp_avg/a": torch.ones(2)}, {})
    checkpoint.save(tmp_path, good, keep=1)
    for bad in (
        dataclasses.replace(good, epoch=2, weights={"a": torch.tensor([1.0, math.nan])}),
        dataclasses.replace(good, epoch=2, optimizer={"exp_avg/a": torch.tensor([1.0, math.inf])}),
    ):
        with pytest.raises(NonFiniteError, match="a is not finite"):
            checkpoint.save(tmp_path, bad, keep=1)
    assert checkpoint.epochs(tmp_path) == [1]


def test_a_checkpoint_of_an_older_version_that_is_not_finite_is_passed_over(tmp_path, monkeypatch):
    good = checkpoint.Checkpoint(1, {"a": torch.ones(2)}, {}, {})
    checkpoint.save(tmp_path, good, keep=2)
    monkeypatch.setattr(checkpoint, "first_not_finite", lambda tensors: None)
    checkpoint.save(
        tmp_path,
        dataclasses.replace(good, epoch=2, weights={"a": torch.tensor([1.0, math.nan])}),
        keep=2,
    )
    monkeypatch.undo()
    with pytest.warns(
        UserWarning, match="holds numbers that are not finite, first in a. Falling back"
    ):
        assert checkpoint.load_newest(tmp_path).epoch == 1


@pytest.mark.parametrize("healthy", [1, 2])
def test_a_state_that_samples_nothing_finite_is_put_aside_for_the_one_before(
    healthy, tmp_path, monkeypatch
):
    """The network fails from some epoch's state on; resume begins with the state that still sampled, or anew."""
    run = tmp_path / "run"
    real = DiffusionPolicy.output

    def failing(*given):
        return real(*given) * (math.nan if len(log.read(run / "metrics.jsonl")) >= healthy else 1)

    with monkeypatch.context() as patched:
        patched.setattr(DiffusionPolicy, "output", failing)
        said = rf"Lower the learning rate if this began.*epoch {healthy} is set aside: resume continues from epoch {healthy - 1}\.$"
        with pytest.raises(NonFiniteError, match=said):
            train(config({"name": f"{tiny.FILE}:Toy"}, epochs=4), run)
    assert checkpoint.epochs(run / "checkpoints") == list(range(1, healthy))
    assert len(list((run / "checkpoints").glob(f"damaged-epoch-0000{healthy}-*"))) == 1
    assert [row["epoch"] for row in resume(run)] == list(range(healthy - 1, 4))


def test_a_state_that_a_run_begins_with_is_not_put_aside_unasked(tmp_path, monkeypatch):
    """Its precision may have been changed, which would be at fault for every other state too."""
    run = tmp_path / "run"
    train(config({"name": f"{tiny.FILE}:Toy"}), run)
    real = DiffusionPolicy.output
    monkeypatch.setattr(DiffusionPolicy, "output", lambda *given: real(*given) * math.nan)
    with pytest.raises(
        NonFiniteError, match=r"If epoch 1 was still healthy, move checkpoints/epoch-00002 away"
    ):
        resume(run, epochs=4)
    assert checkpoint.epochs(run / "checkpoints") == [2, 1]


def test_a_fault_is_explained_once_and_counted_in_every_epoch(tmp_path, capsys):
    train(config(sick(above=0.5)), tmp_path / "run", finite_redness)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("The decoder gave NaN in fp16") == 1
    assert said.count("samples not finite") == 2 and "rewards masked" not in said


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_decoder_that_overflows_gives_no_white_picture(pipeline, value):
    denoiser = tiny.Tiny(path=pipeline, precision="fp16").load("cpu", 0)
    policy = DiffusionPolicy(denoiser, DDIM(num_steps=2).bind(denoiser.schedule))
    draws = Draws([0], [Prompt("a cat")], (0,))
    assert sampled(policy, draws).whole == [0]  # the control
    denoiser.vae.decoder.conv_out.bias.data.fill_(value)
    made = sampled(policy, draws)
    assert made.faults == ["decoder: NaN in fp16"] and made.samples.isnan().all()
