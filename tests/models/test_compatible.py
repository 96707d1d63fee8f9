"""Models of another kind are told apart by their configurations, before a run has a folder."""

import json
import shutil

import ldm
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_latent_diffusion import loaded, ours

from rediffuse.cli import main
from rediffuse.errors import ConfigError
from rediffuse.lookup.build import build


@pytest.fixture
def says(pipeline, tmp_path):
    """The tiny pipeline, with other words in its configurations."""

    def say(part, **words):
        folder = tmp_path / "model"
        if not folder.exists():
            shutil.copytree(pipeline, folder)
        file = folder / {
            "index": "model_index.json",
            "scheduler": "scheduler/scheduler_config.json",
            "tokenizer": "tokenizer/tokenizer_config.json",
        }.get(part, f"{part}/config.json")
        known = {**json.loads(file.read_text()), **words}
        file.write_text(
            json.dumps({key: value for key, value in known.items() if value is not ...})
        )
        return str(folder)

    return say


def model(source, **options):
    return build(
        "model", {"name": "stable_diffusion", "source": source, "guidance_scale": 1.0, **options}
    )


@pytest.mark.parametrize(
    ("part", "words", "said"),
    [
        ("unet", {"addition_embed_type": "text_time"}, "is Stable Diffusion XL"),
        (
            "unet",
            {"in_channels": 9},
            "is an inpainting model: its U-Net takes 9 channels, and its autoencoder has 4",
        ),
        ("unet", {"in_channels": 8}, "is an image-editing model"),
        ("unet", {"num_class_embeds": 10}, "takes a class label besides the text"),
        ("unet", {"time_cond_proj_dim": 8}, "is a latent consistency model"),
        ("unet", {"out_channels": 8}, "a learned variance"),
        (
            "unet",
            {"cross_attention_dim": 24},
            "mixes two models: its U-Net reads text embeddings of 24 numbers",
        ),
        ("unet", {"_class_name": "UNet3DConditionModel"}, "has a UNet3DConditionModel as its unet"),
        ("vae", {"latent_channels": 16}, "its autoencoder has 16"),
        (
            "vae",
            {"_class_name": "AutoencoderTiny"},
            "has a AutoencoderTiny as its vae, where AutoencoderKL is needed",
        ),
        ("index", {"_class_name": "FluxPipeline"}, "is a FluxPipeline"),
        (
            "scheduler",
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "is a flow-matching model",
        ),
        ("scheduler", {"prediction_type": "flow_prediction"}, "is a flow-matching model"),
        (
            "scheduler",
            {"_class_name": "LCMScheduler"},
            "is a latent consistency model by its scheduler",
        ),
        (
            "scheduler",
            {"prediction_type": "velocity"},
            "predicts 'velocity'; there are epsilon, v_prediction, sample",
        ),
        ("scheduler", {"thresholding": True}, "set thresholding to false"),
        ("scheduler", {"beta_schedule": "exp"}, "has the beta_schedule 'exp'; there are linear"),
        (
            "unet",
            {"sample_size": None},
            "model.size_pixels: .* does not say which size .* --model.size-pixels 512",
        ),
        ("unet", {"sample_size": [8, 12]}, "model.size_pixels: .* not square"),
    ],
)
def test_a_model_of_another_kind_says_what_it_is_before_weights_are_read(part, words, said, says):
    with pytest.raises(ConfigError, match=said):
        model(says(part, **words))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("index", {"safety_checker": [None, None]}), ("vae", {"shift_factor": None}), ("scheduler", {"_class_name": "PNDMScheduler"}),
        ("scheduler", {"prediction_type": "sample"}), ("tokenizer", {"model_max_length": ...}),
    ],
)  # fmt: skip
def test_one_that_fits_is_loaded(part, words, says, pipeline):
    """The control of the test above; a tokenizer that does not say its limit has its text encoder's."""
    denoiser = model(says(part, **words)).load("cpu", 0)
    assert ours(denoiser).isfinite().all()
    if part == "tokenizer":
        torch.testing.assert_close(ours(denoiser), ours(model(str(pipeline)).load("cpu", 0)))


@pytest.mark.parametrize("size", [None, [8, 12]])
def test_a_size_that_is_said_is_taken(size, says):
    assert ours(model(says("unet", sample_size=size), size_pixels=32).load("cpu", 0)).shape[
        -2:
    ] == (32, 32)


def test_files_of_half_precision_are_asked_for_by_the_option_that_loads_them(pipeline, tmp_path):
    loaded(pipeline).save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(ConfigError, match=r"Add --model\.variant fp16"):
        model(str(tmp_path / "half")).load("cpu", 0)
    got = ours(model(str(tmp_path / "half"), variant="fp16").load("cpu", 0))
    torch.testing.assert_close(got, ours(model(str(pipeline)).load("cpu", 0)))


@pytest.fixture
def single(pipeline, tmp_path):
    """A single file without the tensors that begin so."""

    def lacking(begin):
        ldm.save_single_file(loaded(pipeline), tmp_path / "whole.safetensors")
        whole = load_file(tmp_path / "whole.safetensors")
        save_file(
            {name: value for name, value in whole.items() if not name.startswith(begin)},
            tmp_path / "part.safetensors",
        )
        return str(tmp_path / "part.safetensors")

    return lacking


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        ("model.diffusion_model.", "holds no unet"), ("first_stage_model.", "holds no vae.*--model.vae FOLDER"),
        ("cond_stage_model.", "holds no text_encoder.*--model.text-encoder FOLDER"),
    ],
)  # fmt: skip
def test_a_single_file_that_lacks_a_part_says_which_option_names_it(begin, said, single, pipeline):
    with pytest.raises(ConfigError, match=said):
        model(single(begin), config=str(pipeline)).load("cpu", 0)


@pytest.mark.parametrize(
    ("begin", "part"), [("first_stage_model.", "vae"), ("cond_stage_model.", "text_encoder")]
)
def test_a_part_that_an_option_names_is_taken(begin, part, single, pipeline):
    got = model(single(begin), config=str(pipeline), **{part: str(pipeline / part)}).load("cpu", 0)
    torch.testing.assert_close(
        ours(got), ours(model(str(pipeline)).load("cpu", 0)), atol=2e-4, rtol=0
    )
    got = model(str(pipeline), **{part: str(pipeline)}).load("cpu", 0)
    torch.testing.assert_close(ours(got), ours(model(str(pipeline)).load("cpu", 0)))
    with pytest.raises(ConfigError, match=rf"model\.{part}: nowhere is no folder"):
        model(str(pipeline), **{part: "nowhere"}).load("cpu", 0)


def test_an_adapter_is_no_model(tmp_path):
    save_file(
        {"lora_unet_mid_block.lora_down.weight": torch.zeros(2, 2)}, tmp_path / "lora.safetensors"
    )
    (tmp_path / "folder").mkdir()
    save_file(
        {"unet.x.lora_A.weight": torch.zeros(2, 2)},
        tmp_path / "folder" / "pytorch_lora_weights.safetensors",
    )
    with pytest.raises(ConfigError, match=r"holds an adapter \(LoRA\), not a model"):
        model(str(tmp_path / "lora.safetensors"), config=str(tmp_path)).load("cpu", 0)
    with pytest.raises(ConfigError, match=r"holds an adapter \(LoRA\), not a model"):
        model(str(tmp_path / "folder"))


@pytest.mark.parametrize("place", ["run", None])
def test_a_run_that_cannot_begin_leaves_no_folder_in_the_way(
    place, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        "--model",
        "stable_diffusion",
        "--model.source",
        says("unet", num_class_embeds=10),
    ]
    with pytest.raises(SystemExit) as stop:
        main([*words, *(["--run-dir", place] if place else [])])
    assert stop.value.code == 2 and "takes a class label besides" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "run").exists() and not [*tmp_path.glob("runs/*")]


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", (16, 9, 3, 3), "inpainting model"),
        ("conditioner.embedders.0.weight", (2,), "is Stable Diffusion XL"),
        ("model.diffusion_model.joint_blocks.0.weight", (2,), "has a transformer"),
        ("model.diffusion_model.label_emb.0.0.weight", (2,), "takes a class"),
    ],
)
def test_a_single_file_of_another_kind_says_what_it_is(name, shape, said, single):
    """Told from its header, without a configuration and before the Hub is asked for one."""
    place = single("nothing")
    save_file({**load_file(place), name: torch.zeros(shape)}, place)
    with pytest.raises(ConfigError, match=f"{said}.*This family trains"):
        model(place).load("cpu", 0)


def test_a_part_that_an_option_names_is_the_one_that_has_to_fit(says, pipeline):
    odd = says("vae", _class_name="AutoencoderTiny")
    with pytest.raises(ConfigError, match="AutoencoderTiny"):
        model(odd)
    model(odd, vae=str(pipeline)).load("cpu", 0)
    with pytest.raises(ConfigError, match="its autoencoder has 16"):
        model(str(pipeline), vae=str(says("vae", latent_channels=16)))


def test_a_folder_of_which_one_part_has_the_variant_is_read(pipeline, tmp_path):
    shutil.copytree(pipeline, tmp_path / "model")
    file = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    got = model(str(tmp_path / "model"), variant="fp16").load("cpu", 0)
    torch.testing.assert_close(ours(got), ours(model(str(pipeline)).load("cpu", 0)))
