"""Costs of the families before they are loaded: of folders, files, the cache, and known ids."""

import json

import pytest
import tiny
import torch
from safetensors.torch import save_file

from rediffuse.lookup.build import build
from rediffuse.models._costs import FIRST_TEXT_LAYER, KNOWN
from rediffuse.types import HasCosts


def costs(name, **options):
    family = build("model", {"name": name, **options})
    assert isinstance(family, HasCosts)
    return family.costs()


def test_costs_are_those_of_the_loaded_model(pipeline):
    model = {"name": "stable_diffusion", "source": str(pipeline), "lora_rank": 3}
    loaded, found = build("model", model).load("cpu", 0), costs(**model)
    trained = sum(each.numel() for each in loaded.parameters().values())
    assert found.network.trained == trained
    sizes = {
        part: sum(each.numel() for each in getattr(loaded, part).parameters())
        for part in ("vae", "text_encoder", "unet")
    }
    assert found.weights == {
        "network": 4 * (sizes["unet"] - trained),
        "autoencoder": 4 * sizes["vae"],
        "text encoder": 4 * sizes["text_encoder"],
    }
    assert found.latent_numbers == torch.Size(loaded.latent_shape).numel()


def test_costs_of_the_packaged_model_and_of_pixels(tmp_path):
    assert costs("emoji").network.parameters == 5_543_700
    tiny.build_ddpm(tmp_path / "model")
    found = costs("ddpm", source=str(tmp_path / "model"), train="full")
    assert found.network.trained == found.network.parameters > 0
    assert found.decoding_bytes == 0
    assert found.sample_numbers == 3 * 8 * 8


@pytest.mark.parametrize(
    ("name", "source", "parameters"),
    [
        ("stable_diffusion", "CompVis/stable-diffusion-v1-4", 859_520_964),
        ("stable_diffusion", "stabilityai/stable-diffusion-2-1", 865_910_724),
        ("ddpm", "google/ddpm-cat-256", 113_673_219),
        ("ddpm", "google/ddpm-cifar10-32", 35_746_307),
    ],
)
def test_known_models_have_their_published_sizes(name, source, parameters):
    assert costs(name, source=source).network.parameters == parameters


def test_a_model_of_the_hub_that_is_not_known_has_none():
    assert costs("stable_diffusion", source="someone/something") is None
    assert len(KNOWN) > 10  # the control


def test_a_single_file_is_told_by_the_width_of_its_text(tmp_path):
    for width, expected in ((768, 859_520_964), (1024, 865_910_724), (10, None)):
        file = tmp_path / f"{width}.safetensors"
        save_file({FIRST_TEXT_LAYER: torch.zeros(320, width)}, file)
        found = costs("stable_diffusion", source=str(file))
        assert (found and found.network.parameters) == expected
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 20)
    assert costs("stable_diffusion", source=str(tmp_path / "broken.safetensors")) is None


def test_the_cache_of_the_hub_is_read(pipeline, tmp_path, monkeypatch):
    from huggingface_hub import constants

    folder = tiny.cache_of_the_hub(pipeline, "small", "0" * 40, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    unet = json.loads((folder / "unet" / "config.json").read_text())
    found = costs("stable_diffusion", source="someone/small")
    assert unet["block_out_channels"] == [16, 16]
    assert (
        found.network.parameters
        == costs("stable_diffusion", source=str(pipeline)).network.parameters
    )


def test_networks_with_other_blocks_have_no_costs(pipeline, tmp_path):
    import shutil

    folder = shutil.copytree(pipeline, tmp_path / "model")
    place = folder / "unet" / "config.json"
    place.write_text(place.read_text().replace('"DownBlock2D"', '"KDownBlock2D"'))
    assert costs("stable_diffusion", source=str(folder)) is None
    assert costs("stable_diffusion", source=str(pipeline)) is not None
