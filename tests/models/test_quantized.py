"""Frozen weights in 8 and 4 bits, and what is refused before a model is loaded."""

import importlib

import pytest
import tiny
import torch
from peft.tuners.lora import LoraLayer
from test_master_weights import inputs
from torch import nn

from rediffuse.errors import ConfigError
from rediffuse.models import _quantized

KINDS = ["int8", "nf4"]


def weight_bytes(denoiser):
    return sum(
        value.nbytes for name, value in denoiser.network.named_parameters() if "lora_" not in name
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_quantised_weights_are_smaller_and_the_adapter_on_top_learns_in_fp32(
    kind, precision, pipeline
):
    pytest.importorskip("bitsandbytes", reason="the extra bnb")
    plain = tiny.Tiny(path=pipeline, precision=precision).load("cpu", 0)
    denoiser = tiny.Tiny(path=pipeline, precision=precision, quantize=kind).load("cpu", 0)
    assert weight_bytes(denoiser) < weight_bytes(plain)
    with torch.no_grad():
        want, found = plain.predict(*inputs(plain)), denoiser.predict(*inputs(denoiser))
    error = (found - want).norm() / want.norm()
    assert 0 < error < {"int8": 0.05, "nf4": 0.5}[kind]
    denoiser.predict(*inputs(denoiser)).square().mean().backward()
    for name, parameter in denoiser.parameters().items():
        assert parameter.dtype == torch.float32
        assert parameter.grad.isfinite().all()
        assert "lora_A" in name or (parameter.grad != 0).any()  # B is 0 at first, so A's is
    layers = [each for each in denoiser.network.modules() if isinstance(each, LoraLayer)]
    assert layers and not any(
        each.get_base_layer().weight.is_floating_point()
        for each in layers
        if isinstance(each.get_base_layer(), nn.Linear)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_network_is_trained_as_it_samples(kind, pipeline):
    """A pass without gradients changes no bit of the next one with them."""
    pytest.importorskip("bitsandbytes", reason="the extra bnb")
    denoiser = tiny.Tiny(path=pipeline, quantize=kind).load("cpu", 0)
    with torch.no_grad():
        sampled = denoiser.predict(*inputs(denoiser))
    assert torch.equal(denoiser.predict(*inputs(denoiser)), sampled)
    with denoiser.merged(), torch.no_grad():
        assert torch.equal(denoiser.predict(*inputs(denoiser)), sampled)


def test_quantised_weights_cannot_be_trained_and_need_the_extra(pipeline, monkeypatch, tmp_path):
    """Before anything is loaded: there is no such folder."""
    nowhere = tmp_path / "nowhere"
    with pytest.raises(ConfigError, match="model.quantize: int8 holds frozen weights.*train lora"):
        tiny.Tiny(path=nowhere, quantize="int8", train="full").load("cpu", 0)
    monkeypatch.setattr(
        _quantized,
        "find_spec",
        lambda name: None if name == "bitsandbytes" else importlib.util.find_spec(name),
    )
    with pytest.raises(ConfigError, match=r"model.quantize: nf4 needs.*rediffuse\[bnb\]"):
        tiny.Tiny(path=nowhere, quantize="nf4").load("cpu", 0)
    with pytest.raises(ConfigError, match="nowhere"):  # the control
        tiny.Tiny(path=nowhere).load("cpu", 0)
