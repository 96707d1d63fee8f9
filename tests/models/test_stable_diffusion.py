"""Stable Diffusion in every form that it is shipped in; on small models of the same classes, and its real size on no device."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ldm
import pytest
import tiny
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file
from test_latent_diffusion import PROMPTS, loaded, ours, theirs

from rediffuse import resume, train
from rediffuse.errors import ConfigError
from rediffuse.lookup.build import build
from rediffuse.models._diffusers import LatentDiffusion
from rediffuse.models._sources import Networks
from rediffuse.models.stable_diffusion import StableDiffusion
from rediffuse.runs.folder import existing

PARTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]


@pytest.fixture
def single_file(pipeline, tmp_path):
    ldm.save_single_file(loaded(pipeline), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_a_folder_and_a_single_file_are_the_same_model(pipeline, single_file):
    want = theirs(loaded(pipeline), 5.0)
    for options in ({"source": str(pipeline)}, {"source": str(single_file), "config": pipeline}):
        torch.testing.assert_close(
            ours(StableDiffusion(**options).load("cpu", 0)), want, atol=2e-4, rtol=0
        )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_images_are_those_of_the_pipeline(prediction, guidance_scale, pipeline, tmp_path):
    plain = loaded(pipeline)
    plain.scheduler = DDIMScheduler.from_config(plain.scheduler.config, prediction_type=prediction)
    plain.save_pretrained(tmp_path / "model")
    got = ours(
        StableDiffusion(source=str(tmp_path / "model"), guidance_scale=guidance_scale).load(
            "cpu", 0
        )
    )
    torch.testing.assert_close(got, theirs(plain, guidance_scale), atol=2e-4, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_what_the_network_predicts_can_be_said_against_the_source(
    prediction, pipeline, single_file
):
    """A single file of Stable Diffusion 2.x does not say it itself."""
    plain = loaded(pipeline)
    other = {"epsilon": "v_prediction", "v_prediction": "epsilon"}[prediction]
    believed = DDIMScheduler.from_config(plain.scheduler.config, prediction_type=other)
    plain.scheduler = DDIMScheduler.from_config(believed.config, prediction_type=prediction)
    for options in ({"source": str(pipeline)}, {"source": str(single_file), "config": pipeline}):
        denoiser = StableDiffusion(prediction=prediction, **options).load("cpu", 0)
        assert denoiser.schedule.prediction == prediction
        torch.testing.assert_close(ours(denoiser), theirs(plain, 5.0), atol=2e-4, rtol=0)


def test_the_weights_of_a_full_fine_tuning_are_fp32_and_an_adapters_base_is_not(pipeline):
    for what, precision, want in (
        ("lora", "bf16", torch.bfloat16),
        ("full", "bf16", torch.float32),
    ):
        denoiser = StableDiffusion(source=str(pipeline), train=what, precision=precision).load(
            "cpu", 0
        )
        assert denoiser.unet.conv_in.weight.dtype == want
        assert {p.dtype for p in denoiser.parameters().values()} == {torch.float32}


def test_gradient_checkpointing_changes_no_gradient(pipeline):
    found = []
    for checkpointing in (False, True):
        denoiser = StableDiffusion(source=str(pipeline), gradient_checkpointing=checkpointing).load(
            "cpu", 0
        )
        assert denoiser.unet.is_gradient_checkpointing == checkpointing
        prompts = [tiny.Prompt(text) for text in PROMPTS]
        x = torch.randn(2, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
        forwards = []
        for part in denoiser.unet.modules():
            if isinstance(part, ResnetBlock2D):
                part.register_forward_pre_hook(lambda *_, forwards=forwards: forwards.append(1))
        output = denoiser.predict(x, torch.tensor([500, 20]), denoiser.encode(prompts))
        once = len(forwards)
        found.append(
            torch.autograd.grad(output.square().mean(), list(denoiser.parameters().values()))
        )
        assert (len(forwards) > once) == checkpointing  # once more, on the way back
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_another_size_of_image(pipeline):
    denoiser = StableDiffusion(source=str(pipeline), size_pixels=24).load("cpu", 0)
    assert denoiser.latent_shape == (4, 12, 12)
    assert ours(denoiser).shape == (2, 3, 24, 24)
    with pytest.raises(ConfigError, match="model.size_pixels: 17 is not a multiple of 4"):
        StableDiffusion(source=str(pipeline), size_pixels=17).load("cpu", 0)


@pytest.mark.parametrize(
    "name",
    ["unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/tokenizer.json"],
)
def test_a_folder_that_lacks_a_file_is_told_which(name, pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    said = "tokenizer/vocab.json" if "tokenizer" in name else name
    with pytest.raises(ConfigError, match=rf"has no {said}"):
        StableDiffusion(source=str(tmp_path / "model")).load("cpu", 0)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer"])
def test_a_damaged_component_is_named_and_leaves_no_run_behind(part, pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "model")
    for weights in (tmp_path / "model" / part).glob("*.safetensors"):
        weights.write_bytes(b"")
    if part == "tokenizer":
        (tmp_path / "model" / part / "tokenizer.json").write_text("{")
    model = {"name": "stable_diffusion", "source": str(tmp_path / "model")}
    with pytest.raises(ConfigError, match=rf"model.source: cannot read .*model/{part}: "):
        train(tiny.config(model=model), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_of_another_size_are_named_with_their_component(pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "model")
    config = tmp_path / "model" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"block_out_channels": [16, 48]}))
    with pytest.raises(ConfigError, match=r"cannot read .*model/unet: .*48"):
        StableDiffusion(source=str(tmp_path / "model")).load("cpu", 0)


def test_weights_in_shards(pipeline, tmp_path):
    plain = loaded(pipeline)
    plain.save_pretrained(tmp_path / "model", max_shard_size="100KB")
    assert len(list((tmp_path / "model" / "unet").glob("*-of-*.safetensors"))) > 1
    got = ours(StableDiffusion(source=str(tmp_path / "model")).load("cpu", 0))
    torch.testing.assert_close(got, theirs(plain, 5.0), atol=2e-4, rtol=0)


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_that_lacks_a_component_is_told_which(part, pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / part)
    with pytest.raises(
        ConfigError,
        match=rf"has no {part}/.* A pipeline needs unet, vae, text_encoder, tokenizer, scheduler",
    ):
        StableDiffusion(source=str(tmp_path / "model")).load("cpu", 0)


def pickled(pipeline, folder):
    shutil.copytree(pipeline, folder)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(unet.state_dict(), folder / "unet" / "diffusion_pytorch_model.bin")
    return folder


def test_pickles_are_refused_unless_a_flag_asks_for_them(pipeline, single_file, tmp_path):
    folder = pickled(pipeline, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"as a pickle .* --model.allow-pickle true"):
        StableDiffusion(source=str(folder)).load("cpu", 0)
    got = ours(StableDiffusion(source=str(folder), allow_pickle=True).load("cpu", 0))
    torch.testing.assert_close(got, theirs(loaded(pipeline), 5.0), atol=2e-4, rtol=0)
    old = single_file.rename(tmp_path / "model.ckpt")
    with pytest.raises(ConfigError, match=r"not a .safetensors file"):
        StableDiffusion(source=str(old), config=pipeline).load("cpu", 0)
    torch.save(load_file(old), tmp_path / "pickled.ckpt")
    got = ours(
        StableDiffusion(
            source=str(tmp_path / "pickled.ckpt"), config=pipeline, allow_pickle=True
        ).load("cpu", 0)
    )
    torch.testing.assert_close(got, theirs(loaded(pipeline), 5.0), atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("./nowhere", r"no folder ./nowhere"),
        ("nowhere.safetensors", r"no file nowhere.safetensors"),
        ("a model of mine", r"no folder and no model on the Hub is called 'a model of mine'"),
    ],
)
def test_a_source_that_is_not_there(source, said):
    with pytest.raises(ConfigError, match=said):
        StableDiffusion(source=source).load("cpu", 0)


def test_a_folder_with_a_variant_alone(pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "model")
    whole = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(
        ConfigError, match=r"has no unet/.*, only diffusion_pytorch_model.fp16.safetensors"
    ):
        StableDiffusion(source=str(tmp_path / "model")).load("cpu", 0)


def test_latents_are_not_clipped_where_the_scheduler_says_nothing(pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "model")
    path = tmp_path / "model" / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    del config["clip_sample"]
    path.write_text(json.dumps(config))
    assert (
        StableDiffusion(source=str(tmp_path / "model")).load("cpu", 0).schedule.clip_sample_range
        is None
    )


def test_a_run_means_the_same_model_in_any_working_directory(
    pipeline, single_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(pipeline.parent)
    source = os.path.relpath(single_file)
    model = {
        "name": "stable_diffusion",
        "source": source,
        "config": pipeline.name,
        "guidance_scale": 1.0,
    }
    config = tiny.config(epochs=1, model=model, sampler={"num_steps": 2})
    train(config, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    resume(tmp_path / "run", epochs=2)


def test_a_file_that_is_no_model(pipeline, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"hello")
    with pytest.raises(ConfigError, match="cannot read"):
        StableDiffusion(source=str(tmp_path / "model.safetensors"), config=pipeline).load("cpu", 0)


class Hub(BaseHTTPRequestHandler):
    """Refuses as the real one does: by a status and a header."""

    def do_GET(self):
        """A gated model is shown to all; only its files are refused."""
        if "silent" in self.path or "stable-diffusion-v1-5" in self.path:
            time.sleep(60)
        body = b""
        status, code = (403, "GatedRepo") if "gated" in self.path else (401, "RepoNotFound")
        if "revision/v9" in self.path:
            status, code = 404, "RevisionNotFound"
        elif "broken" in self.path or "stale" in self.path:
            status, code = (500, "") if "broken" in self.path else (401, "")
        elif self.path.startswith("/api/models/someone/gated"):
            tree = [{"type": "file", "path": "model_index.json", "size": 1, "oid": "b2"}]
            found = tree if "/tree/" in self.path else {"id": "someone/gated", "sha": "a1" * 20}
            status, code, body = 200, "", json.dumps(found).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


REFUSED = [
    ("someone/gated", [], "accept its licence at https://huggingface.co/someone/gated"),
    ("someone/broken", [], "the Hub answers 500 for someone/broken"),
    (
        "someone/stale",
        [],
        "the Hub denies access to someone/stale (401); if your token has expired, run: hf auth login",
    ),
    (
        "single.safetensors",
        [],
        "model.config: cannot reach the Hub for stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
    (
        "single.safetensors",
        ["--model.config", "someone/silent"],
        "model.config: cannot reach the Hub for someone/silent",
    ),
    (
        "single.safetensors",
        ["--model.config", "someone/misspelt"],
        "model.config: no folder and no model on the Hub",
    ),
    ("someone/misspelt", [], "no model on the Hub is called 'someone/misspelt'"),
    (
        "someone/model",
        ["--model.revision", "v9"],
        "model.revision: someone/model has no revision 'v9'",
    ),
]
UNREACHABLE = [
    ("someone/model", ["--model.revision", "a1" * 20], "cannot reach the Hub"),
    ("someone/model", [], "cannot reach the Hub"),
]
ASK_ALL = """
import contextlib, io, json, os, sys, time
from pathlib import Path
from rediffuse.cli import main

answers = []
for source, more in json.loads(sys.argv[1]):
    began = time.monotonic()
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main(["train", "--model", "stable_diffusion", "--model.source", source, *more, "--run-dir", "run"])
        except SystemExit as end:
            code = end.code
    answers.append([code, said.getvalue(), time.monotonic() - began, Path("run").exists()])
print(json.dumps(answers), flush=True)
os._exit(0)  # each answer has its exit code
"""


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_hub_that_is_silent_is_told_within_30_seconds(hub, tmp_path):
    words = ["train", "--model", "stable_diffusion", "--model.source", "someone/silent"]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "rediffuse", *words, "--run-dir", "run"],
        cwd=tmp_path,
        env=tiny.hub_environment(hub, tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2 and "cannot reach the Hub" in done.stderr, done.stderr
    assert time.monotonic() - began < 30 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("there", [True, False])
def test_what_the_hub_refuses_is_told_with_a_remedy(there, hub, single_file, tmp_path):
    """All cases in one process, whose environment names the Hub."""
    cases = REFUSED if there else UNREACHABLE
    shutil.copy(single_file, tmp_path / "single.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", ASK_ALL, json.dumps([case[:2] for case in cases])],
        cwd=tmp_path,
        env=tiny.hub_environment(hub if there else "http://127.0.0.1:9", tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for (source, _, wanted), (code, said, seconds, has_folder) in zip(cases, answers, strict=True):
        assert (code, has_folder) == (2, False), (source, said)
        assert wanted in said and "Traceback" not in said, (source, said)
        assert seconds < 30, source


def test_without_the_hub_the_cache_answers_and_the_run_keeps_the_commit(pipeline, tmp_path):
    commit = "a1" * 20
    cached = tiny.cache_of_the_hub(pipeline, "model", commit, tmp_path)
    command = [
        sys.executable,
        "-m",
        "rediffuse",
        "train",
        "--model",
        "stable_diffusion",
        "--model.source",
        "someone/model",
    ]
    command += [
        "--epochs",
        "1",
        "--prompts-per-epoch",
        "2",
        "--updates-per-epoch",
        "1",
        "--sampler.num-steps",
        "2",
    ]
    command += ["--algorithm", "rwr", "--run-dir", "run"]
    offline = tiny.hub_environment("http://127.0.0.1:9", tmp_path)
    done = subprocess.run(
        command, cwd=tmp_path, env=offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert existing(tmp_path / "run").config().model["revision"] == commit
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["model"] == {
        "revision": commit
    }
    assert StableDiffusion(source=str(cached)).load("cpu", 0).pinned == {}


class RealSize:
    """Stable Diffusion v1-4 without a single weight."""

    commit = None

    def networks(self, dtype):
        with torch.device("meta"):
            unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                sample_size=512,
            )
        scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        )  # fmt: skip
        return Networks(unet, vae, torch.nn.Linear(1, 1, device="meta"), None, scheduler)


def test_the_real_size_of_stable_diffusion_v1_4():
    """LoRA by hand: 16 transformers, of width C twice 320, 640, 1280 down, 1280 in the middle, thrice 1280, 640, 320 up, which
    sum to 12,480. Each has six maps from C to C, of 4 (C + C) at rank 4, and two from the text's 768, of 4 (768 + C).
    """
    model = LatentDiffusion(RealSize(), StableDiffusion(), "meta", 0)
    assert model.latent_shape == (4, 64, 64)
    widths = 2 * (320 + 640 + 1280) + 1280 + 3 * (1280 + 640 + 320)
    by_hand = 6 * 8 * widths + 2 * 4 * (16 * 768 + widths)
    assert by_hand == 797_184
    assert sum(p.numel() for p in model.parameters().values()) == by_hand
    assert sum(p.numel() for p in model.unet.parameters()) - by_hand == 859_520_964
    schedule = model.schedule
    assert (
        schedule.steps_offset == 1
        and schedule.spacing == "leading"
        and schedule.clip_sample_range is None
    )
    assert schedule.alpha_bar[0].item() == pytest.approx(1 - 0.00085)
    assert schedule.final_alpha_bar == pytest.approx(1 - 0.00085)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert schedule.alpha_bar[999].item() == pytest.approx((1 - betas).prod().item(), rel=1e-4)


def test_its_options_are_checked_before_anything_is_loaded():
    with pytest.raises(ConfigError, match=r"model.train: .*'lora' or 'full'"):
        build("model", {"name": "stable_diffusion", "train": "all"})
