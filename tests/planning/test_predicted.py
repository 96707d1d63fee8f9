"""Predictions: what they count, what they say, and what they suggest where a run cannot fit."""

from dataclasses import replace

import pytest
import tiny

from rediffuse.cli import run
from rediffuse.config.recipes import read_recipe, resolved
from rediffuse.config.schema import Rows
from rediffuse.costs.devices import GIB, named, on_this_machine
from rediffuse.costs.predict import cures
from rediffuse.lookup.parts import assemble
from rediffuse.planning.predicted import costs_of, lines
from rediffuse.planning.timings import Timings

CORES = on_this_machine(None, 16 * GIB, cores=2)


def costs(recipe="demo/incompressibility", device=CORES, timings=None, **over):
    config = resolved(read_recipe(recipe), over)
    return costs_of(config, assemble(config), device, timings)


def test_the_demo_is_predicted_near_what_was_measured():
    """A gigabyte, and 9 seconds of each of two cores for an epoch of 90 images at 15 rows."""
    found = replace(costs(one_pass=False), rows=Rows(15, 15, 15)).prediction()
    assert found.bytes == pytest.approx(1.02e9, rel=0.15)
    assert found.epoch_seconds == pytest.approx(9, rel=0.3)
    assert not found.host
    assert found.fits


def test_one_pass_takes_memory_and_saves_a_forward_pass_of_trained_rows():
    two = replace(costs(), one_pass=False)
    one = replace(two, one_pass=True)
    gradients = one.prediction().memory["gradients of each sample"]
    assert gradients == 90 * 664_576 * 4
    assert one.training_seconds() == 0
    forward = two.device.seconds(two.pass_work("sampling", 15), "fp32") * 90 * 4 / 15 / 2
    saved = two.prediction().epoch_seconds - one.prediction().epoch_seconds
    assert saved == pytest.approx(forward, rel=0.1)


def test_a_gpu_holds_networks_and_its_host_the_trajectories():
    found = costs("one_gpu/compressibility", named("RTX 3060")).prediction()
    assert found.memory["weights: network"] == 859_520_964 * 2
    assert "weights: text encoder" in found.host
    assert found.host["samples and trajectories"] > 256 * 51 * 4 * 64 * 64 * 4
    assert 2.5 * GIB < found.bytes < 4 * GIB
    assert found.fits


def test_a_run_that_cannot_fit_says_what_would():
    full = costs("paper_tpu/compressibility", named("T4"))
    assert full.rows.training == 1  # the control: there are no fewer
    said = "\n".join(lines(resolved(read_recipe("paper_tpu/compressibility"), {}), full))
    assert "does not fit 16.0 GB" in said
    assert "--model.train lora, or --model.gradient-checkpointing true" in said
    small = replace(named("RTX 3060"), memory_bytes=4 * GIB)
    adapter = costs("paper/compressibility", small, model={"precision": "fp32"})
    found = cures(adapter, adapter.prediction())
    assert found[:2] == ["--model.precision bf16", "--model.gradient-checkpointing true"]


def test_measured_passes_replace_computed_ones():
    timings = Timings({kind: {1: 10.0} for kind in ("sampling", "decoding", "training")})
    found = costs(timings=timings)
    assert found.rows == Rows(1, 1, 1)
    assert found.prediction().seconds["decoding"] == 90 * 10 / 2
    config = resolved(read_recipe("demo/incompressibility"), {})
    assert "measured" in lines(config, found)[-1]


def test_regression_with_encoded_samples_and_references_cost_more():
    plain = costs("demo/incompressibility", algorithm={"name": "rwr"})
    encoded = costs("demo/incompressibility", algorithm={"name": "rwr", "learns_from": "samples"})
    assert encoded.phases()["decoding"] == 2 * plain.phases()["decoding"]
    penalised = costs(algorithm={"kl_weight": 0.1})
    assert (
        penalised.phases()["training"] > 1.2 * replace(costs(), one_pass=False).training_seconds()
    )


def test_an_explicit_micro_batch_is_planned_with():
    assert costs(micro_batch_size=3).rows == Rows(3, 3, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "--device", "H100"], "predicted on H100, 80.0 GB"),
        (["plan", "one_gpu/compressibility", "--device", "rtx 4090"], "main memory"),
        (["plan"], "an epoch without rewards (predicted: sampling"),
        (
            ["plan", "--model", f"{tiny.FILE}:Toy"],
            "predicted    nothing: this model's costs are not known",
        ),
    ],
)
def test_plan_prints_the_prediction(words, said, capsys):
    run(words)
    assert said in capsys.readouterr().out


def test_plan_measures_the_model_of_this_machine(capsys, monkeypatch):
    from rediffuse.planning import measure

    monkeypatch.setattr(measure, "SECONDS", 0.1)
    monkeypatch.setattr("rediffuse.costs.devices.found", lambda: CORES)
    run(["plan", "--measure", "--prompts-per-epoch", "2"])
    assert "(measured: sampling" in capsys.readouterr().out
