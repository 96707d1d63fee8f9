"""Adapters that are added to the weight give the same outputs and gradients as those of peft."""

import pytest
import tiny
import torch
from test_latent_diffusion import shaken
from test_master_weights import OF_CONVOLUTIONS, factors, inputs

from rediffuse.models import _fine_tuned, _fused
from rediffuse.types import Merges

OPTIONS = [
    {},
    OF_CONVOLUTIONS,
    {"lora_alpha": 16.0, "lora_targets": ("conv2", "time_emb_proj", "proj_out", "to_out.0")},
]


@pytest.fixture
def plain(monkeypatch):
    """Loads a denoiser whose adapters compute as peft's."""

    def load(options):
        with monkeypatch.context() as patch:
            patch.setattr(_fine_tuned, "fuse", lambda layers: None)
            return shaken(options.load("cpu", 0))

    return load


def calls_of(denoiser):
    calls = []
    for factor in factors(denoiser):
        factor.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("options", OPTIONS)
def test_outputs_and_gradients_are_those_of_peft(options, pipeline, plain):
    family = tiny.Tiny(path=pipeline, **options)
    fused, usual = shaken(family.load("cpu", 0)), plain(family)
    x, time, conditioning = inputs(fused)
    found, expected = [], []
    for denoiser, results in ((fused, found), (usual, expected)):
        given = x.clone().requires_grad_()
        output = denoiser.predict(given, time, conditioning)
        wanted = [given, *denoiser.parameters().values()]
        results += [output, *torch.autograd.grad(output.square().sum(), wanted)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())
    with fused.using("start"):  # the control
        assert (fused.predict(x, time, conditioning) - found[0]).abs().max() > 1e-3


@torch.no_grad()
def test_a_pass_does_not_compute_the_adapters_by_themselves(pipeline, plain):
    family = tiny.Tiny(path=pipeline, **OF_CONVOLUTIONS)
    fused, usual = shaken(family.load("cpu", 0)), plain(family)
    few, many = calls_of(fused), calls_of(usual)
    fused.predict(*inputs(fused))
    usual.predict(*inputs(usual))
    assert many and not few


@torch.no_grad()
@pytest.mark.parametrize("most", [256_000_000, 0], ids=["kept", "too large to keep"])
def test_merged_weights_are_computed_once_while_weights_do_not_change(most, pipeline, monkeypatch):
    monkeypatch.setattr(_fused, "MOST_BYTES", most)
    denoiser = shaken(tiny.Tiny(path=pipeline).load("cpu", 0))
    assert isinstance(denoiser, Merges)
    merged, real = [], _fused.Adapted.merged_weight
    monkeypatch.setattr(
        _fused.Adapted, "merged_weight", lambda self: merged.append(1) or real(self)
    )
    usual, layers = denoiser.predict(*inputs(denoiser)), len(merged)
    merged.clear()
    with denoiser.merged():
        outputs = [denoiser.predict(*inputs(denoiser)) for _ in range(3)]
    assert len(merged) == (layers if most else 3 * layers) > 0
    assert all(torch.equal(output, usual) for output in outputs)


@torch.no_grad()
def test_weights_that_change_are_never_stale(pipeline):
    """As an optimizer changes them, or a moving average that takes their place."""
    denoiser = shaken(tiny.Tiny(path=pipeline).load("cpu", 0))
    parameters = denoiser.parameters().values()
    with denoiser.merged():
        first = denoiser.predict(*inputs(denoiser))
        for parameter in parameters:
            parameter.mul_(1.5)
        second = denoiser.predict(*inputs(denoiser))
        for parameter in parameters:
            parameter.data = parameter * 1.5
        third = denoiser.predict(*inputs(denoiser))
    assert torch.equal(third, denoiser.predict(*inputs(denoiser)))
    assert (first - second).abs().max() > 1e-4 < (second - third).abs().max()


def test_in_low_precision_adapters_compute_by_themselves(pipeline):
    """In bf16 most of what an adapter learned is smaller than the last digit of a weight."""
    denoiser = tiny.Tiny(path=pipeline, precision="bf16").load("cpu", 0)
    calls = calls_of(denoiser)
    with denoiser.merged():
        denoiser.predict(*inputs(denoiser))
    assert calls
