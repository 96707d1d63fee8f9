"""A merged adapter predicts the same, and nothing of it stays."""

import pytest
import tiny
import torch
from test_latent_diffusion import shaken
from test_master_weights import OF_CONVOLUTIONS, factors, inputs

from rediffuse.types import Merges


def states(denoiser):
    return {name: value.clone() for name, value in denoiser.network.state_dict().items()}


@pytest.mark.parametrize("options", [{}, OF_CONVOLUTIONS, {"lora_alpha": 16.0}])
@torch.no_grad()
def test_a_merged_adapter_predicts_the_same_without_being_computed(options, pipeline):
    denoiser = shaken(tiny.Tiny(path=pipeline, **options).load("cpu", 0))
    assert isinstance(denoiser, Merges)
    want, calls = denoiser.predict(*inputs(denoiser)), []
    for factor in factors(denoiser):
        factor.register_forward_hook(lambda *_: calls.append(1))
    with denoiser.merged():
        found = denoiser.predict(*inputs(denoiser))
    assert not calls
    torch.testing.assert_close(found, want, atol=1e-5, rtol=0)
    with denoiser.using("start"):  # the control
        assert (denoiser.predict(*inputs(denoiser)) - want).abs().max() > 1e-3


@pytest.mark.parametrize("fails", [False, True])
def test_the_weights_come_back_to_the_bit(fails, pipeline):
    denoiser = shaken(tiny.Tiny(path=pipeline, **OF_CONVOLUTIONS).load("cpu", 0))
    before, output = states(denoiser), denoiser.predict(*inputs(denoiser))
    places = {name: value.data_ptr() for name, value in denoiser.network.named_parameters()}
    try:
        with denoiser.merged():
            assert any(not torch.equal(states(denoiser)[name], before[name]) for name in before)
            assert not fails or 1 / 0
    except ZeroDivisionError:
        assert fails
    assert all(torch.equal(states(denoiser)[name], before[name]) for name in before)
    assert places == {name: value.data_ptr() for name, value in denoiser.network.named_parameters()}
    again = denoiser.predict(*inputs(denoiser))
    assert torch.equal(again, output)
    again.sum().backward()
    assert all(each.grad is not None for each in denoiser.parameters().values())


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"train": "full"}])
def test_in_low_precision_and_without_an_adapter_nothing_is_merged(options, pipeline):
    denoiser = shaken(tiny.Tiny(path=pipeline, **options).load("cpu", 0))
    before = states(denoiser)
    with denoiser.merged():
        assert all(torch.equal(states(denoiser)[name], before[name]) for name in before)
