"""Blocks that recompute their activations: which, and that no gradient changes."""

import pytest
import tiny
import torch
from diffusers import FluxTransformer2DModel
from test_master_weights import inputs, saved_bytes

from rediffuse.errors import ConfigError
from rediffuse.lookup.build import build
from rediffuse.models._checkpointing import block_names, checkpoint_blocks

EVERY = ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")


def gradients(denoiser):
    output = denoiser.predict(*inputs(denoiser))
    return torch.autograd.grad(output.square().mean(), list(denoiser.parameters().values()))


@pytest.mark.parametrize("blocks", [True, ("down_blocks.0",), ("up_blocks.1", "mid_block"), EVERY])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointed_blocks_give_the_same_gradients(blocks, precision, pipeline):
    plain, denoiser = (
        tiny.Tiny(path=pipeline, precision=precision, gradient_checkpointing=each).load("cpu", 0)
        for each in (False, blocks)
    )
    for one, other in zip(gradients(plain), gradients(denoiser), strict=True):
        assert torch.equal(one, other)


def test_each_checkpointed_block_saves_memory(pipeline):
    saved = []
    for blocks in (False, EVERY[:1], EVERY[:2], True):
        options = {"gradient_checkpointing": blocks, "lora_targets": ("conv1", "conv2", "to_q")}
        saved.append(saved_bytes(tiny.Tiny(path=pipeline, **options).load("cpu", 0)))
    assert saved == sorted(saved, reverse=True)
    assert len(set(saved)) == 4


def test_blocks_that_the_network_lacks_are_refused(pipeline):
    with pytest.raises(ConfigError, match=r"no block 'down_block.0'.*mean 'down_blocks.0'"):
        tiny.Tiny(path=pipeline, gradient_checkpointing=("down_block.0",)).load("cpu", 0)
    assert set(block_names(tiny.Tiny(path=pipeline).load("cpu", 0).network)) == set(EVERY)


@pytest.mark.parametrize("value", [True, ["down_blocks.0", "mid_block"]])
def test_the_option_is_one_of_a_configuration(value, pipeline):
    model = {"name": "stable_diffusion", "source": str(pipeline), "gradient_checkpointing": value}
    found = build("model", model).gradient_checkpointing
    assert found == (value if value is True else tuple(value))


def test_the_blocks_of_a_transformer_are_chosen_alike():
    """Of which diffusers checkpoints all or none."""
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        axes_dims_rope=(2, 2, 4),
    )
    assert block_names(network) == [
        "transformer_blocks.0", "transformer_blocks.1", "single_transformer_blocks.0",
    ]  # fmt: skip
    calls = []
    for name in block_names(network):
        block = network.get_submodule(name)
        block.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    checkpoint_blocks(network, ["transformer_blocks.1"])
    output = network(
        torch.randn(1, 4, 4), torch.randn(1, 3, 8), torch.randn(1, 8), torch.ones(1),
        torch.zeros(4, 3), torch.zeros(3, 3),
    ).sample  # fmt: skip
    calls.clear()
    output.sum().backward()
    assert calls == ["transformer_blocks.1"]
