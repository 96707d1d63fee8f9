"""The rule that chooses rows: near the knee, within the memory, evenly, and the same every time."""

import json
from dataclasses import replace

import pytest

from rediffuse.config.schema import DEFAULT_ROWS, Rows
from rediffuse.costs import rows
from rediffuse.costs.architecture import latent_diffusion
from rediffuse.costs.devices import GIB, named, on_this_machine
from rediffuse.costs.tape import Learns
from rediffuse.costs.work import Work
from rediffuse.costs.workload import Workload
from rediffuse.models.emoji import PIPELINE, Emoji
from rediffuse.models.stable_diffusion import StableDiffusion

TINY = {
    "unet": {
        "sample_size": 16,
        "layers_per_block": 2,
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
    },
    "vae": {"block_out_channels": (32, 64)},
    "text_encoder": {
        "vocab_size": 54,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
    },
}
DEMO = Workload(samples=90, num_steps=8, trained_steps=4, allows_one_pass=True)
CORE = on_this_machine(None, 16 * GIB, cores=1)
CORES = on_this_machine(None, 16 * GIB, cores=2)


def tiny():
    learns = Learns(4, ("to_q", "to_k", "to_v", "to_out.0"))
    options = {"precision": "fp32", "size_pixels": None, "checkpointing": False}
    return latent_diffusion(TINY, learns, guidance_scale=5.0, **options)


def test_small_models_have_the_rows_that_were_measured_to_be_near_the_knee():
    """`tiny`: 8 rows take 5 % longer than 16 and half of their memory; the demo ran at 15 by hand."""
    batch = Workload(samples=16, num_steps=10, trained_steps=10, updates=2)
    assert rows.choose(tiny(), CORE, batch).training == 8
    assert rows.choose(tiny(), CORE, batch).sampling == 8
    assert rows.choose(Emoji().costs(), CORES, DEMO) == Rows(15, 9, 15)


def test_equal_settings_give_equal_rows():
    found = [rows.choose(Emoji().costs(), CORES, DEMO) for _ in range(2)]
    assert found[0] == found[1]


def test_an_unknown_model_has_the_usual_rows_and_two_passes():
    assert rows.choose(None, CORE, DEMO) == Rows(DEFAULT_ROWS, DEFAULT_ROWS, DEFAULT_ROWS)
    assert not rows.takes_one_pass(None, CORE, DEMO, 16 * GIB)


def test_a_gpu_fits_its_rows_into_its_memory_and_takes_more_where_launching_is_slow():
    model = StableDiffusion(precision="bf16").costs()
    work = Workload(samples=256, num_steps=50, trained_steps=50, updates=4)
    large, small = named("H100"), replace(named("H100"), memory_bytes=6 * GIB)
    assert rows.choose(model, large, work).training >= 4
    assert rows.choose(model, small, work).training == 1
    for device in (large, small):
        chosen = rows.choose(model, device, work)
        assert chosen.training * model.training_bytes() < rows.activation_bytes(model, device, work)
    assert not rows.fits(model, replace(large, memory_bytes=3 * GIB), work)
    checkpointed = StableDiffusion(precision="bf16", gradient_checkpointing=True).costs()
    assert rows.fits(checkpointed, replace(large, memory_bytes=4 * GIB), work)


def test_more_samples_advance_together_where_few_of_them_learn_from_a_step():
    """Those that do take the step in passes of training's size."""
    model = Emoji().costs()
    work = Workload(samples=256, num_steps=8, trained_steps=4)
    one, two = (rows.choose(model, CORES, work, one_pass=each) for each in (True, False))
    assert two.training == one.training
    assert two.sampling < one.sampling <= 2 * two.sampling


@pytest.mark.parametrize(
    ("most", "number", "lanes", "expected"),
    [(16, 90, 2, 15), (16, 90, 1, 15), (16, 7, 2, 4), (16, 1, 2, 1), (1, 5, 2, 1), (8, 32, 4, 8)],
)
def test_parts_are_even_and_keep_all_lanes_busy(most, number, lanes, expected):
    assert rows.even(most, number, lanes) == expected


def test_the_knee_is_where_launching_takes_an_eighth():
    row = Work(flops=183e9, calls=1 / 22.8e-6)  # a second of computing, a second of launching
    assert rows.knee(row, CORE, "fp32") == 8
    assert rows.knee(Work(calls=5), CORE, "fp32") == rows.MOST_ROWS
    assert rows.knee(Work(flops=1e12, calls=1), CORE, "fp32") == 1


def test_one_pass_where_its_gradients_fit_the_host():
    model = Emoji().costs()
    assert rows.gradient_bytes(model, DEMO) == 90 * 664_576 * 4
    assert rows.takes_one_pass(model, CORES, DEMO, 16 * GIB)
    assert not rows.takes_one_pass(model, CORES, replace(DEMO, samples=1000), 16 * GIB)
    assert rows.takes_one_pass(model, CORES, replace(DEMO, samples=1000, updates=4), 16 * GIB)
    assert not rows.takes_one_pass(model, CORES, DEMO, GIB // 4)


@pytest.mark.parametrize("options", [{"train": "full"}, {"gradient_checkpointing": True}])
def test_one_pass_is_for_adapters_without_checkpointing(options):
    assert not rows.takes_one_pass(Emoji(**options).costs(), CORES, DEMO, 16 * GIB)
    no_scores = replace(DEMO, allows_one_pass=False)
    assert not rows.takes_one_pass(Emoji().costs(), CORES, no_scores, 16 * GIB)


def test_the_weights_are_those_of_the_files():
    """The files of the packaged model hold a header and fp32 or fp16 numbers."""
    model = Emoji().costs()
    settings = json.loads((PIPELINE / "unet" / "config.json").read_text())
    assert settings["block_out_channels"] == [48, 96, 160]
    assert model.weights["network"] == 5_543_700 * 4
    assert model.latents == 1
    assert model.latent_numbers == 4 * 16 * 16
    assert model.sample_numbers == 3 * 64 * 64
