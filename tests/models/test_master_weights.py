"""Adapters compute in the precision of the network, and their weights are fp32."""

import pytest
import tiny
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from rediffuse.models._master_weights import MASTERS
from rediffuse.types import Prompt

OF_CONVOLUTIONS = {"lora_targets": ("to_q", "to_k", "to_v", "conv1", "proj_in")}


def inputs(denoiser):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *denoiser.latent_shape, generator=generator)
    return x, torch.full((2,), 500), denoiser.encode([Prompt("a cat"), Prompt("a dog")])


def factors(denoiser):
    layers = [each for each in denoiser.network.modules() if isinstance(each, LoraLayer)]
    return [each for layer in layers for each in (*layer.lora_A.values(), *layer.lora_B.values())]


def saved_bytes(denoiser):
    """What a prediction holds for its gradient, each tensor once, without weights."""
    weights = {each.untyped_storage().data_ptr() for each in denoiser.network.parameters()}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage  # kept, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        denoiser.predict(*inputs(denoiser))
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_adapters_compute_in_the_network_precision_with_weights_and_gradients_in_fp32(
    precision, pipeline
):
    denoiser = tiny.Tiny(path=pipeline, precision=precision, **OF_CONVOLUTIONS).load("cpu", 0)
    seen = set()
    for factor in factors(denoiser):
        assert isinstance(factor, nn.Linear | nn.Conv2d)
        factor.register_forward_hook(
            lambda module, given, output: seen.update({given[0].dtype, output.dtype})
        )
    denoiser.predict(*inputs(denoiser)).square().mean().backward()
    assert seen == {denoiser.network.conv_in.weight.dtype}
    for parameter in denoiser.parameters().values():
        assert parameter.dtype == parameter.grad.dtype == torch.float32


def test_the_inputs_of_adapted_layers_are_held_once(pipeline):
    denoiser = tiny.Tiny(path=pipeline, precision="bf16", **OF_CONVOLUTIONS).load("cpu", 0)
    narrow = saved_bytes(denoiser)
    for layer in denoiser.network.modules():  # the control: as peft does by itself
        if isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = True
    for factor in factors(denoiser):
        factor.__class__ = {master: plain for plain, master in MASTERS.items()}[type(factor)]
    with torch.autocast("cpu", torch.bfloat16):
        assert narrow < 0.9 * saved_bytes(denoiser)


def test_adapters_in_fp32_are_those_of_peft(pipeline):
    denoiser = tiny.Tiny(path=pipeline, **OF_CONVOLUTIONS).load("cpu", 0)
    assert {type(factor) for factor in factors(denoiser)} == {nn.Linear, nn.Conv2d}


@pytest.mark.parametrize(("train", "cast"), [("lora", False), ("full", True)])
def test_only_networks_whose_weights_are_all_trained_run_under_autocast(train, cast, pipeline):
    """On a GPU, autocast keeps the input and the output of each normalisation in fp32."""
    denoiser = tiny.Tiny(path=pipeline, precision="bf16", train=train).load("cpu", 0)
    seen = []
    denoiser.network.register_forward_pre_hook(
        lambda *_: seen.append(torch.is_autocast_enabled("cpu"))
    )
    denoiser.predict(*inputs(denoiser))
    assert seen == [cast]
