"""Counts from configurations, against the same networks made by diffusers and transformers."""

import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rediffuse.costs import networks
from rediffuse.costs.counts import counted, saved_by_block, size
from rediffuse.costs.tape import Learns, Tape
from rediffuse.models.emoji import PIPELINE, Emoji

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
SD = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SD_AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
SD_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}
SMALL = {
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 24,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
LINEAR = {
    **SMALL,
    "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (2, 4),
}
PIXELS = {
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
EMOJI = json.loads((PIPELINE / "unet" / "config.json").read_text())
CASES = {
    "small": (SMALL, 8, ATTENTION, 4),
    "linear": (LINEAR, 8, (*ATTENTION, "proj_in"), 2),
    "emoji": (EMOJI, 16, Emoji().lora_targets, 16),
    "all weights": (SMALL, 8, (), None),
    "pixels": (PIXELS, 8, ATTENTION, 4),
    "all weights of pixels": (PIXELS, 8, (), None),
}
TOKENS = 5


def recorded(settings, side, targets, rank, learns=True):
    tape = Tape(Learns(rank, targets) if learns else None)
    if settings is PIXELS:
        networks.unconditional_unet(tape, settings, side)
    else:
        networks.conditional_unet(tape, settings, side, TOKENS)
    return counted(tape)


def made(settings, side, targets, rank, checkpointing=False):
    from diffusers import UNet2DConditionModel, UNet2DModel
    from peft import LoraConfig, inject_adapter_in_model

    kind = UNet2DModel if settings is PIXELS else UNet2DConditionModel
    known = {key: value for key, value in settings.items() if not key.startswith("_")}
    network = kind(**{**known, "sample_size": side}).eval()
    parameters = sum(each.numel() for each in network.parameters())
    if checkpointing:
        network.enable_gradient_checkpointing()
    if rank is not None:
        network.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets))
        inject_adapter_in_model(config, network)
    return network.to(memory_format=torch.channels_last), parameters


def output(network, settings, side, rows):
    x = torch.randn(rows, settings["in_channels"], side, side)
    x = x.contiguous(memory_format=torch.channels_last)
    text = (
        [] if settings is PIXELS else [torch.randn(rows, TOKENS, settings["cross_attention_dim"])]
    )
    return network(x, torch.zeros(rows, dtype=torch.int64), *text).sample


def flops(function):
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        function()
    return counter.get_total_flops()


def saved_bytes(network, settings, side, rows):
    """Of distinct storages, without the weights."""
    storages = {}
    weights = {each.untyped_storage().data_ptr() for each in network.parameters()}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = output(network, settings, side, rows)
        found = sum(each.untyped_storage().nbytes() for each in storages.values())
    del kept
    return found


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_those_of_the_network(name):
    network, parameters = made(*CASES[name])
    counts = recorded(*CASES[name])
    assert counts.parameters == parameters
    assert counts.trained == sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", CASES)
def test_flops_of_both_passes_are_those_of_the_flop_counter(name):
    settings, side, *_ = CASES[name]
    network, _ = made(*CASES[name])
    counts = recorded(*CASES[name])
    with torch.no_grad():
        forward = flops(lambda: output(network, settings, side, 2))
    both = flops(lambda: output(network, settings, side, 2).sum().backward())
    assert 2 * counts.forward.flops == pytest.approx(forward, rel=0.02)
    assert 2 * (counts.forward.flops + counts.backward.flops) == pytest.approx(both, rel=0.02)


@pytest.mark.parametrize("name", CASES)
def test_saved_bytes_are_those_of_the_graph(name):
    settings, side, *_ = CASES[name]
    network, _ = made(*CASES[name])
    row = saved_bytes(network, settings, side, 3) - saved_bytes(network, settings, side, 2)
    assert recorded(*CASES[name]).saved_bytes == pytest.approx(row, rel=0.1)


def test_checkpointing_saves_most_of_them_and_computes_their_blocks_again():
    case = CASES["small"]
    network, _ = made(*case, checkpointing=True)
    network.train()
    kept = saved_bytes(network, SMALL, 8, 3) - saved_bytes(network, SMALL, 8, 2)
    counts = recorded(*case)
    assert kept < counts.checkpointed_bytes < 0.6 * counts.saved_bytes
    both = flops(lambda: output(network, SMALL, 8, 1).sum().backward())
    assert both > 1.1 * (counts.forward.flops + counts.backward.flops)  # the control
    again = counts.forward.flops + counts.backward.flops + counts.recomputed.flops
    assert again == pytest.approx(both, rel=0.1)


def test_stable_diffusion_has_the_published_sizes():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet, decode, encode, text = Tape(Learns(4, ATTENTION)), Tape(), Tape(), Tape()
    networks.conditional_unet(unet, SD, 64, 77)
    networks.decoder(decode, SD_AUTOENCODER, 64)
    networks.encoder(encode, SD_AUTOENCODER, 512)
    networks.text_encoder(text, SD_TEXT)
    with torch.device("meta"):
        made = (
            UNet2DConditionModel(**SD),
            AutoencoderKL(**SD_AUTOENCODER),
            CLIPTextModel(CLIPTextConfig(**SD_TEXT)),
        )
        forward = flops(
            lambda: made[0](
                torch.empty(1, 4, 64, 64), torch.zeros(1, dtype=int), torch.empty(1, 77, 768)
            )
        )
        decoding = flops(lambda: made[1].decode(torch.empty(1, 4, 64, 64)))
        encoding = flops(lambda: made[2](torch.zeros(1, 77, dtype=int)))
    counts = [counted(tape) for tape in (unet, decode, encode, text)]
    sizes = [sum(each.numel() for each in network.parameters()) for network in made]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    assert counts[0].parameters == sizes[0]
    assert counts[1].parameters + counts[2].parameters == sizes[1]
    assert counts[3].parameters == sizes[2]
    assert counts[0].trained == 797_184
    assert counts[0].forward.flops == pytest.approx(forward, rel=0.02)
    assert counts[1].forward.flops == pytest.approx(decoding, rel=0.02)
    assert counts[3].forward.flops == pytest.approx(encoding, rel=0.02)
    assert 2 * counts[0].saved_bytes / 2**30 == pytest.approx(2.97, rel=0.01)


def test_blocks_save_what_the_network_saves():
    tape = Tape(Learns(4, ATTENTION))
    networks.conditional_unet(tape, SMALL, 8, TOKENS)
    blocks = saved_by_block(tape)
    assert {"down_blocks.1", "mid_block.attentions", "up_blocks.0"} <= set(blocks)
    assert sum(blocks.values()) == pytest.approx(counted(tape).saved_bytes)


def test_results_live_until_their_last_use():
    tape = Tape()
    x = tape.input(4, 8, 8)
    a = tape.conv("a", x, 4)
    b = tape.conv("b", a, 4)
    tape.add(a, b)
    assert counted(tape).passing_bytes == 3 * 4 * 8 * 8 * 4
    assert size([a, a.view(256)]) == a.bytes


@pytest.mark.parametrize(
    "other", [{"down_block_types": ("KDownBlock2D",) * 2}, {"class_embed_type": "timestep"}]
)
def test_other_networks_are_unknown(other):
    with pytest.raises(networks.Unknown):
        recorded({**SMALL, **other}, 8, ATTENTION, 4)
