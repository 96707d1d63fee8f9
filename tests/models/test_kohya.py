"""The file for ComfyUI and the A1111 web UI: every tensor has a name that they know, and the strength that it was trained at."""

import re

import ldm
import pytest
import tiny
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_latent_diffusion import loaded, ours, shaken, theirs

from rediffuse.errors import ConfigError, RediffuseError
from rediffuse.models import _kohya

EVERYTHING = (
    "to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out", "time_emb_proj", "ff.net.0.proj", "ff.net.2",
    "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_embedding.linear_1", "conv_in", "conv_out",
)  # fmt: skip


def exported(pipeline, path, **options):
    denoiser = shaken(tiny.Tiny(path=pipeline, lora_rank=4, **options).load("cpu", 0))
    denoiser.export_as("kohya", path)
    return denoiser


@pytest.fixture(params=[{"sd2": False}, {"sd2": True}], ids=["SD1", "SD2"])
def unet(request):
    """Of the shape of Stable Diffusion: four resolutions, two layers each, which the tools' tables count on."""
    sizes = (
        {"cross_attention_dim": 1024, "use_linear_projection": True}
        if request.param["sd2"]
        else {"cross_attention_dim": 32}
    )
    return UNet2DConditionModel(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        attention_head_dim=4,
        sample_size=8,
        **sizes,
    )


def modules(tensors):
    return {name.split(".")[0] for name in tensors}


def a1111_name(name):
    """Of a module in the original layout, as the web UI makes it of the file's: its convert_diffusers_name_to_compvis."""
    place = name.removeprefix("lora_unet_")
    kinds = {"attentions": 1, "resnets": 0}
    if found := re.fullmatch(r"(down|up)_blocks_(\d)_(attentions|resnets)_(\d)_(.+)", place):
        way, block, kind, layer, rest = found.groups()
        number = 3 * int(block) + int(layer) + (way == "down")
        rest = ldm.RESNET.get(rest, rest).replace(".", "_") if kind == "resnets" else rest
        return f"{'input' if way == 'down' else 'output'}_blocks_{number}_{kinds[kind]}_{rest}"
    if found := re.fullmatch(r"mid_block_(attentions|resnets)_(\d)_(.+)", place):
        kind, layer, rest = found.groups()
        rest = ldm.RESNET.get(rest, rest).replace(".", "_") if kind == "resnets" else rest
        return f"middle_block_{1 if kind == 'attentions' else 2 * int(layer)}_{rest}"
    if found := re.fullmatch(r"down_blocks_(\d)_downsamplers_0_conv", place):
        return f"input_blocks_{3 * int(found[1]) + 3}_0_op"
    if found := re.fullmatch(r"up_blocks_(\d)_upsamplers_0_conv", place):
        return f"output_blocks_{3 * int(found[1]) + 2}_{2 if int(found[1]) else 1}_conv"
    if found := re.fullmatch(r"time_embedding_linear_(\d)", place):
        return f"time_embed_{2 * int(found[1]) - 2}"
    return {"conv_in": "input_blocks_0_0", "conv_out": "out_2"}.get(place, place)


def adapter_of(unet):
    """As peft would name it, of every module that EVERYTHING means, in the shapes of the weights."""
    lora = {}
    for name, module in unet.named_modules():
        if name.endswith(EVERYTHING) and hasattr(module, "weight"):
            weight = module.weight
            lora[f"{name}.lora_A.weight"] = torch.zeros(4, *weight.shape[1:])
            lora[f"{name}.lora_B.weight"] = torch.zeros(
                weight.shape[0], 4, *[1] * (weight.ndim - 2)
            )
    return lora


def test_both_tools_know_every_module_of_an_adapter_of_stable_diffusion(unet):
    names = modules(_kohya.tensors(adapter_of(unet), 8.0))
    assert len(names) > 200
    weights = [
        name.removesuffix(".weight") for name in unet.state_dict() if name.endswith(".weight")
    ]
    comfy = {"lora_unet_" + name.replace(".", "_") for name in weights}
    assert names <= comfy
    original = {name.removesuffix(".weight").replace(".", "_") for name in ldm._unet(unet)}
    assert {a1111_name(name) for name in names} <= original
    assert a1111_name("lora_unet_down_blocks_7_attentions_0_proj_in") not in original  # the control


def test_a1111_is_told_which_stable_diffusion_it_is_for(unet):
    width = unet.config.cross_attention_dim
    assert _kohya.metadata(unet, 4, 16.0) == {
        "ss_network_module": "networks.lora", "ss_network_dim": "4", "ss_network_alpha": "16.0", "ss_v2": str(width == 1024),
    }  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"lora_alpha": 16.0}, {"lora_targets": EVERYTHING}])
def test_the_file_has_each_tensor_once_with_the_true_alpha_and_loads_in_diffusers_to_the_same_pictures(
    options, pipeline, tmp_path
):
    denoiser = exported(pipeline, tmp_path / "lora.safetensors", **options)
    tensors = load_file(tmp_path / "lora.safetensors")
    assert len(tensors) == 3 * len(modules(tensors)) == 1.5 * len(denoiser.parameters())
    assert {value.item() for name, value in tensors.items() if name.endswith("alpha")} == {
        options.get("lora_alpha", 4.0)
    }
    with safe_open(tmp_path / "lora.safetensors", "pt") as file:
        assert file.metadata()["ss_network_dim"] == "4"
    plain = loaded(pipeline)
    before = theirs(plain, 1.0)
    plain.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    after = theirs(plain, 1.0)
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(ours(denoiser), after, atol=2e-4, rtol=0)


def test_the_policy_is_the_same_after_the_file_was_compared(pipeline, tmp_path):
    denoiser = shaken(tiny.Tiny(path=pipeline).load("cpu", 0))
    before = ours(denoiser)
    denoiser.export_as("kohya", tmp_path / "lora.safetensors")
    assert torch.equal(ours(denoiser), before)
    with denoiser.using("start"):
        assert not torch.equal(ours(denoiser), before)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_an_adapter_of_a_network_in_half_precision_is_exported_whole(precision, pipeline, tmp_path):
    """diffusers reads a file in the precision of the network, which is not the adapter's."""
    denoiser = exported(pipeline, tmp_path / "lora.safetensors", precision=precision)
    tensors = load_file(tmp_path / "lora.safetensors")
    assert len(tensors) == 1.5 * len(denoiser.parameters())
    assert {value.dtype for value in tensors.values()} == {torch.float32}


@pytest.mark.parametrize("part", ["lora_up.weight", "alpha"])
def test_a_file_that_does_not_hold_the_adapter_is_noticed(part, pipeline, tmp_path):
    def wrong(path, tensors):
        save_file(
            {name: 2 * value if name.endswith(part) else value for name, value in tensors.items()},
            path,
        )

    denoiser = exported(pipeline, tmp_path / "lora.safetensors")
    wrong(tmp_path / "lora.safetensors", load_file(tmp_path / "lora.safetensors"))
    with pytest.raises(RediffuseError, match="does not match the trained adapter"):
        denoiser._compare_with(tmp_path / "lora.safetensors")


def test_a_run_without_an_adapter_and_an_unknown_format_are_told_what_there_is(pipeline, tmp_path):
    with pytest.raises(ConfigError, match="has no adapter"):
        exported(pipeline, tmp_path / "x.safetensors", train="full")
    with pytest.raises(ConfigError, match="Did you mean 'kohya'"):
        tiny.Tiny(path=pipeline).load("cpu", 0).export_as("kohia", tmp_path / "x.safetensors")
