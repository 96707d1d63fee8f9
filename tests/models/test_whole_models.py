"""Tensors that a file lacks, that it has too many of, or that are not finite: in the base, in judges and in reward models."""

import shutil

import ldm
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_latent_diffusion import loaded

from rediffuse.errors import ConfigError
from rediffuse.lookup.build import build

FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def lacking(tensors):
    dropped = sorted(tensors)[: len(tensors) // 4]
    return {name: value for name, value in tensors.items() if name not in dropped}


def misnamed(tensors):
    return {f"wrong.{name}": value for name, value in tensors.items()}


def surplus(tensors):
    return {**tensors, "extra.weight": torch.zeros(2)}


def not_finite(tensors):
    name = min(name for name, value in tensors.items() if value.is_floating_point())
    return {**tensors, name: tensors[name] * torch.nan}


HARMS = [
    (lacking, "lacks"),
    (misnamed, "lacks"),
    (surplus, "is not expected to have 1 tensor, first extra.weight"),
    (not_finite, "not finite"),
]


def harmed(file, harm):
    save_file(
        {name: value.contiguous() for name, value in harm(load_file(file)).items()},
        file,
        metadata={"format": "pt"},
    )


@pytest.mark.parametrize(("harm", "said"), HARMS)
@pytest.mark.parametrize("part", FILES)
def test_a_part_of_a_pipeline_that_is_not_whole_is_refused(part, harm, said, pipeline, tmp_path):
    folder = shutil.copytree(pipeline, tmp_path / "model")
    # the control
    build("model", {"name": "stable_diffusion", "source": str(folder)}).load("cpu", 0)
    harmed(folder / part / FILES[part], harm)
    with pytest.raises(ConfigError, match=rf"model\.source: .*{part}.*{said}"):
        build("model", {"name": "stable_diffusion", "source": str(folder)}).load("cpu", 0)


@pytest.mark.parametrize(
    "part",
    [
        "model.diffusion_model.middle_block",
        "first_stage_model.decoder.mid",
        "cond_stage_model.transformer.text_model.encoder.layers.0",
    ],
)
def test_a_single_file_that_lacks_something_is_refused(part, pipeline, tmp_path):
    file = tmp_path / "model.safetensors"
    ldm.save_single_file(loaded(pipeline), file)
    options = {"name": "stable_diffusion", "source": str(file), "config": str(pipeline)}
    build("model", options).load("cpu", 0)  # the control
    harmed(
        file,
        lambda tensors: {
            name: value for name, value in tensors.items() if not name.startswith(part)
        },
    )
    with pytest.raises(ConfigError, match=r"model\.source"):
        build("model", options).load("cpu", 0)


@pytest.mark.parametrize(("harm", "said"), HARMS)
def test_a_clip_model_that_is_not_whole_is_refused(harm, said, clip, tmp_path):
    folder = shutil.copytree(clip, tmp_path / "clip")
    build("reward", {"name": "clip_score", "clip": str(folder)}).load("cpu")  # the control
    harmed(folder / "model.safetensors", harm)
    with pytest.raises(ConfigError, match=rf"reward\.clip: .*{said}"):
        build("reward", {"name": "clip_score", "clip": str(folder)}).load("cpu")


@pytest.mark.parametrize(
    ("option", "harm", "said"),
    [("vlm", *HARMS[0]), ("vlm", *HARMS[3]), ("encoder", *HARMS[0]), ("encoder", *HARMS[3])],
)
def test_a_judge_that_is_not_whole_is_refused(option, harm, said, judge, tmp_path):
    build("reward", {"name": "alignment", **judge}).load("cpu")  # the control
    folder = shutil.copytree(judge[option], tmp_path / option)
    harmed(folder / "model.safetensors", harm)
    with pytest.raises(ConfigError, match=rf"reward\.{option}: .*{said}"):
        build("reward", {"name": "alignment", **judge, option: str(folder)}).load("cpu")
