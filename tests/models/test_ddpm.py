"""Models of pixels, from noise alone: what diffusers' own classes do, and whole runs of them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from tiny import numbers, weights

from rediffuse.cli import run as command
from rediffuse.errors import ConfigError
from rediffuse.evaluation.suites import Question, evaluate
from rediffuse.lookup.build import build
from rediffuse.maths import noise
from rediffuse.models import _folders
from rediffuse.models.ddpm import DDPM
from rediffuse.models.stable_diffusion import StableDiffusion
from rediffuse.policy import DiffusionPolicy
from rediffuse.rollout import Draws, denoise
from rediffuse.samplers.ddim import DDIM
from rediffuse.start import resume, train
from rediffuse.types import Prompt

STEPS = 5


def ours(denoiser):
    policy = DiffusionPolicy(denoiser, DDIM(num_steps=STEPS, eta=0).bind(denoiser.schedule))
    with torch.no_grad():
        return denoiser.decode(denoise(policy, Draws([0, 1], [Prompt()] * 2, (0,))).latents)


def theirs(unet, scheduler):
    """diffusers' network and its DDIM, step by step, from the same noise."""
    walk = DDIMScheduler.from_config(scheduler.config)
    walk.set_timesteps(STEPS)
    channels, side = unet.config.in_channels, unet.config.sample_size
    x = noise.draw([noise.generator(0, i) for i in range(2)], (channels, side, side))
    with torch.no_grad():
        for time in walk.timesteps:
            x = walk.step(unet(x, time).sample, time, x, eta=0.0).prev_sample
    return (x / 2 + 0.5).clamp(0, 1).expand(-1, 3, -1, -1)


@pytest.mark.parametrize(
    "how", [{}, {"prediction": "epsilon"}, {"channels": 1}, {"flat": True}], ids=str
)
def test_images_are_those_of_diffusers(how, tmp_path):
    tiny.build_ddpm(tmp_path / "model", **how)
    place = {} if how.get("flat") else {"subfolder": "unet"}
    unet = UNet2DModel.from_pretrained(tmp_path / "model", **place)
    place = {} if how.get("flat") else {"subfolder": "scheduler"}
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "model", **place)
    got = ours(DDPM(source=str(tmp_path / "model")).load("cpu", 0))
    assert got.shape == (2, 3, 8, 8)
    torch.testing.assert_close(got, theirs(unet, scheduler), atol=1e-5, rtol=0)


def shaken(denoiser):
    """As if it had learned something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in denoiser.parameters().values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return denoiser


def by_the_card(denoiser, base, folder):
    """The network that the model card's own words load."""
    code = re.search("```python\n(.*?)```", denoiser.model_card().usage, re.DOTALL)
    names = {"BASE_MODEL": base, "THIS_FOLDER": folder, "UNet2DModel": UNet2DModel}
    if code:
        exec(code[1], names)
        return names["pipeline"].unet
    return eval(re.search(r"`(\w+\.from_pretrained.*?)`", denoiser.model_card().usage)[1], names)


@pytest.mark.parametrize("options", [{}, {"lora_alpha": 16.0}, {"train": "full"}], ids=str)
def test_what_was_exported_loads_as_its_card_says_to_the_same_pictures(options, pixels, tmp_path):
    denoiser = shaken(DDPM(source=str(pixels), **options).load("cpu", 0))
    denoiser.export(tmp_path)
    plain = DDPMPipeline.from_pretrained(pixels)
    before = theirs(plain.unet, plain.scheduler)
    after = theirs(by_the_card(denoiser, pixels, tmp_path), plain.scheduler)
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(
        ours(denoiser), after, atol=1e-3, rtol=0
    )  # merged, it rounds elsewhere


def test_equal_adapters_are_equal_bytes(pixels, tmp_path):
    content = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shaken(DDPM(source=str(pixels)).load("cpu", 0)).export(tmp_path / name)
        content.append([path.read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert content[0] == content[1] and len(content[0]) == 2


@pytest.mark.parametrize("what", ["lora", "full"])
def test_with_the_start_it_is_the_pretrained_model_for_a_while(what, pixels):
    denoiser = DDPM(source=str(pixels), train=what).load("cpu", 0)
    before = ours(denoiser)
    tuned = ours(shaken(denoiser))
    with denoiser.using("start"):
        torch.testing.assert_close(ours(denoiser), before, atol=1e-6, rtol=0)
    assert torch.equal(ours(denoiser), tuned)
    assert not torch.allclose(tuned, before, atol=1e-3)


def test_a_model_without_attention_is_told_that_nothing_can_learn(tmp_path):
    plain = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    tiny.build_ddpm(tmp_path / "model", **plain, add_attention=False)
    with pytest.raises(ConfigError, match=r"model\.lora_targets"):
        DDPM(source=str(tmp_path / "model")).load("cpu", 0)
    DDPM(source=str(tmp_path / "model"), lora_targets=("conv1",)).load("cpu", 0)


@pytest.mark.parametrize("what", ["lora", "full"])
def test_it_runs_and_learns_in_bf16_on_a_cpu(what, pixels):
    denoiser = DDPM(source=str(pixels), precision="bf16", train=what).load("cpu", 0)
    output = denoiser.predict(torch.randn(1, 3, 8, 8), torch.tensor([500]), denoiser.encode([]))
    output.sum().backward()
    assert output.dtype == torch.float32 and output.isfinite().all()
    assert all(each.grad.isfinite().all() for each in denoiser.parameters().values())


def test_samples_are_encoded_to_the_latents_they_are_decoded_from(pixels):
    denoiser = DDPM(source=str(pixels)).load("cpu", 0)
    latents = torch.rand(2, 3, 8, 8) * 2 - 1
    mean, std = denoiser.encode_samples(denoiser.decode(latents))
    torch.testing.assert_close(mean, latents)
    assert not std.any()
    broken = latents.index_fill(0, torch.tensor([1]), torch.inf)
    assert denoiser.decode(broken)[1].isnan().all() and denoiser.decode(broken)[0].isfinite().all()


@pytest.mark.parametrize(
    ("file", "words", "said"),
    [
        ("model_index.json", {"_class_name": "ScoreSdeVePipeline"}, "is a ScoreSdeVePipeline"),
        ("unet/config.json", {"num_class_embeds": 10}, "is class-conditional"),
        ("unet/config.json", {"out_channels": 6}, "learned variance"),
        ("unet/config.json", {"in_channels": 4, "out_channels": 4}, "images of 4 channels"),
        ("unet/config.json", {"sample_size": None}, "does not say which size"),
        ("unet/config.json", {"_class_name": "UNet1DModel"}, "UNet2DModel is needed"),
        ("scheduler/scheduler_config.json", {"thresholding": True}, "thresholds"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "beta_schedule"),
    ],
)
def test_a_model_of_another_kind_says_what_it_is(file, words, said, pixels, tmp_path):
    model = Path(shutil.copytree(pixels, tmp_path / "model"))
    DDPM(source=str(model))  # the control
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | words))
    with pytest.raises(ConfigError, match=rf"model\.source: .*{said}.*DDPMPipeline"):
        DDPM(source=str(model))


def test_each_family_refuses_the_others_models(pixels, pipeline):
    with pytest.raises(ConfigError, match="StableDiffusionPipeline"):
        DDPM(source=str(pipeline))
    with pytest.raises(ConfigError, match="This family trains text-to-image models"):
        StableDiffusion(source=str(pixels))


def test_a_folder_that_lacks_its_weights_is_told_which(pixels, tmp_path):
    model = Path(shutil.copytree(pixels, tmp_path / "model"))
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="has no unet/diffusion_pytorch_model.safetensors"):
        DDPM(source=str(model)).load("cpu", 0)
    with pytest.raises(ConfigError, match=r"model\.source: no folder"):
        DDPM(source=str(tmp_path / "nowhere")).load("cpu", 0)


@pytest.mark.parametrize("flat", [False, True])
def test_of_the_hub_the_parts_alone_are_fetched_and_the_commit_is_kept(flat, tmp_path, monkeypatch):
    tiny.build_ddpm(tmp_path / "c0ffee", flat=flat)
    asked = []

    def snapshot(key, place, revision, patterns):
        asked.append((place, revision, tuple(patterns)))
        return tmp_path / "c0ffee"

    monkeypatch.setattr(_folders.hub, "snapshot", snapshot)
    assert DDPM(source="someone/cats").load("cpu", 0).pinned == {"revision": "c0ffee"}
    assert asked[0] == ("someone/cats", None, ("model_index.json",))
    assert asked[1] == ("someone/cats", None, ("*.json", "*/*.json"))
    place = "" if flat else "unet/"
    assert asked[2][1] == "c0ffee"
    assert f"{place}diffusion_pytorch_model.safetensors" in asked[2][2]


def config(pixels, **over):
    usual = {
        "epochs": 4,
        "prompts_per_epoch": 16,
        "images_per_prompt": 1,
        "learning_rate": 3e-3,
        "micro_batch_size": 16,
        "model": {"name": "ddpm", "source": str(pixels)},
        "prompts": {"name": "one_prompt", "text": ""},
        "evaluation": {"every": 2, "images_per_prompt": 2},
    }
    return tiny.config(**{**usual, **over})


@pytest.mark.parametrize("what", ["lora", "full"])
def test_it_trains_resumes_and_is_looked_at_like_any_other(what, pixels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = {"name": "ddpm", "source": str(pixels), "train": what}
    train(config(pixels, model=model), "whole")
    train(config(pixels, model=model, epochs=2), "run")
    resume("run", epochs=4)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "run")
    assert max(row["ratio_drift"] for row in numbers(tmp_path / "run")) < 1e-4
    assert len(list((tmp_path / "run" / "samples" / "epoch-00004").glob("[0-9]*.png"))) == 2
    assert (tmp_path / "run" / "report.html").exists()
    found = evaluate(
        tmp_path / "run", Question(suites=("own",), num_prompts=2, images_per_prompt=2)
    )
    assert found["suites"][0]["num_prompts"] == 1
    command(["sample", "run", "--seed", "1"])
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "StableDiffusionPipeline" not in card
    assert ("PeftModel.from_pretrained(pipeline.unet, THIS_FOLDER)" in card) == (what == "lora")
    assert ("UNet2DModel.from_pretrained(THIS_FOLDER" in card) == (what == "full")
    with pytest.raises(
        ConfigError, match=r"--to kohya: this kind of model cannot be converted to that format"
    ):
        command(["export", "run", "--to", "kohya"])


@pytest.mark.parametrize(("what", "learning_rate"), [("lora", 3e-2), ("full", 3e-3)])
def test_its_reward_rises(what, learning_rate, tmp_path):
    tiny.build_ddpm(tmp_path / "model", prediction="v_prediction")
    model = {"name": "ddpm", "source": str(tmp_path / "model"), "train": what}
    over = {
        "model": {**model, "lora_targets": ["to_q", "to_v", "to_out.0", "conv1", "conv2"]},
        "sampler": {"num_steps": 4, "spacing": "trailing"},
        "evaluation": {"every": 0},
        "epochs": 5,
        "prompts_per_epoch": 64,
        "updates_per_epoch": 4,
        "micro_batch_size": 64,
        "learning_rate": learning_rate,
    }
    history = train(config("", **over), tmp_path / "run")
    assert history[-1]["reward_mean"] - history[0]["reward_mean"] > history[0]["reward_std"]


def test_it_is_found_by_its_name(pixels):
    assert build("model", {"name": "ddpm", "source": str(pixels)}).train == "lora"
