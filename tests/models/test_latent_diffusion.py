"""What we predict, decode and export is what diffusers' own pipeline does with it."""

import json

import pytest
import tiny
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors import safe_open

from rediffuse.errors import ConfigError
from rediffuse.lookup.build import build
from rediffuse.maths import noise
from rediffuse.models import _diffusers
from rediffuse.models.emoji import PIPELINE, Emoji
from rediffuse.policy import DiffusionPolicy
from rediffuse.rollout import Draws, denoise, sampled
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import EncodedSamples, PreparesPrompts, Prompt, Transitions

PROMPTS = ["a cat", "two dogs"]


def ours(denoiser, num_steps=5):
    policy = DiffusionPolicy(denoiser, DDIM(num_steps=num_steps, eta=0).bind(denoiser.schedule))
    with torch.no_grad():
        way = denoise(policy, Draws([0, 1], [Prompt(text) for text in PROMPTS], (0,)))
        return denoiser.decode(way.latents)


def theirs(pipeline, guidance_scale, num_steps=5):
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    latents = noise.draw(
        [noise.generator(0, i) for i in range(2)], (4, *[pipeline.unet.config.sample_size] * 2)
    )
    options = {
        "num_inference_steps": num_steps,
        "guidance_scale": guidance_scale,
        "eta": 0.0,
        "output_type": "pt",
    }
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return pipeline(PROMPTS, latents=latents, height=size, width=size, **options).images


def loaded(folder):
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_images_are_those_of_the_pipeline(guidance_scale, pipeline):
    denoiser = tiny.Tiny(path=pipeline, guidance_scale=guidance_scale).load("cpu", 0)
    torch.testing.assert_close(
        ours(denoiser), theirs(loaded(pipeline), guidance_scale), atol=2e-4, rtol=0
    )


def test_the_embedded_model_is_a_stable_diffusion_pipeline_of_at_most_16_megabytes():
    files = [path for path in PIPELINE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    got = ours(Emoji().load("cpu", 0), num_steps=8)
    assert got.shape == (2, 3, 64, 64)
    torch.testing.assert_close(got, theirs(loaded(PIPELINE), 1.0, num_steps=8), atol=2e-3, rtol=0)


def test_the_embedded_model_loads_in_plain_diffusers():
    plain = StableDiffusionPipeline.from_pretrained(PIPELINE)
    plain.set_progress_bar_config(disable=True)
    assert plain("a cat", num_inference_steps=2, output_type="np").images.shape == (1, 64, 64, 3)


def shaken(denoiser):
    """As if it had learned something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in denoiser.parameters().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return denoiser


@pytest.mark.parametrize(
    "options",
    [{}, {"lora_alpha": 16.0}, {"lora_targets": ("to_q", "conv1", "time_emb_proj", "proj_in")}],
)
def test_the_adapter_loads_in_diffusers_to_the_same_pictures(options, pipeline, tmp_path):
    denoiser = shaken(tiny.Tiny(path=pipeline, lora_rank=4, **options).load("cpu", 0))
    denoiser.export(tmp_path)
    plain = loaded(pipeline)
    before = theirs(plain, 1.0)
    plain.load_lora_weights(tmp_path)
    after = theirs(plain, 1.0)
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(ours(denoiser), after, atol=2e-4, rtol=0)


def test_the_adapter_has_its_metadata_and_equal_weights_are_equal_bytes(pipeline, tmp_path):
    content = []
    for name in ("a", "b"):
        shaken(tiny.Tiny(path=pipeline).load("cpu", 0)).export(tmp_path / name)
        content.append((tmp_path / name / "pytorch_lora_weights.safetensors").read_bytes())
    assert content[0] == content[1]
    with safe_open(tmp_path / "a" / "pytorch_lora_weights.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert metadata["unet.lora_alpha"] == metadata["unet.r"] == 4


def test_all_weights_are_exported_after_full_fine_tuning(pipeline, tmp_path):
    denoiser = shaken(tiny.Tiny(path=pipeline, train="full").load("cpu", 0))
    denoiser.export(tmp_path)
    plain = loaded(pipeline)
    plain.unet = plain.unet.from_pretrained(tmp_path, subfolder="unet")
    torch.testing.assert_close(ours(denoiser), theirs(plain, 1.0), atol=2e-4, rtol=0)


@pytest.mark.parametrize("train", ["lora", "full"])
def test_with_the_start_it_is_the_pretrained_model_for_a_while(train, pipeline):
    denoiser = tiny.Tiny(path=pipeline, train=train).load("cpu", 0)
    before = ours(denoiser)
    shaken(denoiser)
    tuned = ours(denoiser)
    with denoiser.using("start"):
        torch.testing.assert_close(ours(denoiser), before, atol=1e-5, rtol=0)
    assert torch.equal(ours(denoiser), tuned)
    assert not torch.allclose(tuned, before)


def test_a_fresh_adapter_changes_nothing_and_its_start_is_keyed_by_the_seed(pipeline):
    denoisers = [tiny.Tiny(path=pipeline).load("cpu", seed) for seed in (0, 0, 1)]
    a, b, c = (
        torch.cat([p.flatten() for p in denoiser.parameters().values()]) for denoiser in denoisers
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    torch.testing.assert_close(ours(denoisers[0]), ours(denoisers[2]))


def test_targets_that_name_no_module_are_an_error(pipeline):
    with pytest.raises(ConfigError, match="model.lora_targets"):
        tiny.Tiny(path=pipeline, lora_targets=("nothing_like_it",)).load("cpu", 0)


@pytest.mark.parametrize("name", ["emoji", "stable_diffusion"])
def test_a_model_in_bf16_runs_and_learns_on_a_cpu(name, pipeline):
    source = {"source": str(pipeline)} if name == "stable_diffusion" else {}
    denoiser = build("model", {"name": name, "precision": "bf16", **source}).load("cpu", 0)
    x = torch.randn(1, *denoiser.latent_shape)
    output = denoiser.predict(x, torch.tensor([500]), denoiser.encode([Prompt("a cat")]))
    output.sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in denoiser.parameters().values())
    assert denoiser.decode(x).isfinite().all()


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_predictions_are_fp32_whatever_the_network_is(precision, pipeline):
    denoiser = tiny.Tiny(path=pipeline, precision=precision).load("cpu", 0)
    conditioning = denoiser.encode([Prompt("a cat")])
    output = denoiser.predict(
        torch.randn(1, *denoiser.latent_shape), torch.tensor([500]), conditioning
    )
    assert output.dtype == torch.float32


def test_a_prompt_is_encoded_to_the_same_bits_in_any_company(pipeline):
    one, other = (tiny.Tiny(path=pipeline).load("cpu", 0) for _ in range(2))
    alone = one.encode([Prompt("a cat")])["text"][0]
    assert torch.equal(alone, other.encode([Prompt("a dog"), Prompt("a cat")])["text"][1])


def test_images_are_encoded_as_the_autoencoder_does(pipeline):
    denoiser = tiny.Tiny(path=pipeline).load("cpu", 0)
    images = torch.rand(2, 3, 16, 16)
    vae = loaded(pipeline).vae
    law = vae.encode(2 * images - 1).latent_dist
    want = law.mean * vae.config.scaling_factor, law.std * vae.config.scaling_factor
    torch.testing.assert_close(denoiser.encode_samples(images), want, atol=1e-5, rtol=1e-5)


def slope(function, at, along, size=1e-2):
    """Of a scalar function in one direction, by two values of it."""
    with torch.no_grad():
        return (function(at + size * along) - function(at - size * along)).item() / (2 * size)


def test_a_decoded_sample_has_the_gradient_of_its_latents(pipeline):
    """Which a reward that is differentiable is trained through."""
    denoiser = tiny.Tiny(path=pipeline).load("cpu", 0)
    latents, along = torch.randn(2, 1, *denoiser.latent_shape, generator=noise.generator(0, "at"))

    def brightness(latents):
        return denoiser.decode(latents).square().mean()

    latents.requires_grad_(True)
    (gradient,) = torch.autograd.grad(brightness(latents), latents)
    assert gradient.isfinite().all() and (gradient != 0).any()
    expected = slope(brightness, latents.detach(), along)
    assert (gradient * along).sum().item() == pytest.approx(expected, rel=2e-2)
    assert abs(expected) > 1e-4  # which noise of fp32 is not


def test_encoded_latents_have_the_gradient_of_the_samples(pipeline):
    denoiser = tiny.Tiny(path=pipeline).load("cpu", 0)
    images, along = torch.rand(2, 1, 3, 16, 16, generator=noise.generator(0, "at"))

    def size(images):
        return denoiser.encode_samples(images)[0].square().mean()

    images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(size(images), images)
    assert (gradient * along).sum().item() == pytest.approx(
        slope(size, images.detach(), along), rel=2e-2
    )


@pytest.mark.parametrize("keep", [Transitions, EncodedSamples])
def test_a_rollout_holds_no_graph(keep, pipeline):
    """The control of the two tests above: whoever samples does without gradients."""
    denoiser = tiny.Tiny(path=pipeline).load("cpu", 0)
    policy = DiffusionPolicy(denoiser, DDIM(num_steps=2).bind(denoiser.schedule))
    made = sampled(policy, Draws([0], [Prompt("a cat")], (0,)), keep)
    way = made.trajectory
    tensors = [made.samples, way.path, way.log_probs, *([] if way.spread is None else [way.spread])]
    assert not any(each.requires_grad for each in tensors)
    assert denoiser.decode(torch.randn(1, *denoiser.latent_shape).requires_grad_()).requires_grad


def counting_visits(monkeypatch):
    visits = []
    real = _diffusers.visiting

    def counted(network, device):
        visits.append(device)
        return real(network, device)

    monkeypatch.setattr(_diffusers, "visiting", counted)
    return visits


def test_the_text_encoder_visits_the_device_once_for_all_unknown_texts(pipeline, monkeypatch):
    denoiser = tiny.Tiny(path=pipeline).load("cpu", 0)
    visits = counting_visits(monkeypatch)
    prompts = [Prompt(text) for text in ("a", "b", "c", "a")]
    denoiser.encode(prompts)
    assert len(visits) == 1
    denoiser.encode(prompts[:2])
    assert len(visits) == 1


def test_announced_prompts_are_encoded_ahead_only_where_the_text_encoder_travels(
    pipeline, monkeypatch
):
    prompts = [Prompt("a"), Prompt("b")]
    want = tiny.Tiny(path=pipeline).load("cpu", 0).encode(prompts)["text"]
    denoiser = tiny.Tiny(path=pipeline).load("cpu", 0)
    assert isinstance(denoiser, PreparesPrompts)
    visits = counting_visits(monkeypatch)
    denoiser.prepare(prompts)
    assert not visits
    monkeypatch.setattr(_diffusers, "home_of", lambda device: torch.device("meta"))
    denoiser.prepare(prompts)
    assert len(visits) == 1
    assert torch.equal(denoiser.encode(prompts)["text"], want)
    assert len(visits) == 1


def test_embeddings_are_remembered_in_the_precision_of_the_text_encoder(pipeline):
    denoiser = tiny.Tiny(path=pipeline, precision="bf16").load("cpu", 0)
    (remembered,) = denoiser._embeddings.of(["a cat"])
    given = denoiser.encode([Prompt("a cat")])["text"]
    assert (remembered.dtype, given.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(given[0], remembered.float())
