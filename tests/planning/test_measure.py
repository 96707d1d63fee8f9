"""Timed passes: of every kind, more rows as long as time and memory last."""

import pytest
import tiny
import torch

from rediffuse.planning.measure import KINDS, passes, timed
from rediffuse.policy import DiffusionPolicy
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import Prompt


@pytest.fixture
def policy():
    denoiser = tiny.ToyDenoiser(4, 0)
    return DiffusionPolicy(denoiser, DDIM(num_steps=2).bind(denoiser.schedule))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_doubled_up_to_the_most(policy, kind):
    assert list(timed(policy, kind, [Prompt("a")] * 8, 6, 10.0)) == [1, 2, 4]


def test_it_ends_with_the_time_and_with_the_memory(policy, monkeypatch):
    assert list(timed(policy, "decoding", [Prompt("a")] * 8, 8, 0.0)) == [1]

    def decode(latents, prompts):
        if len(latents) > 2:
            raise torch.OutOfMemoryError
        return latents

    monkeypatch.setattr(policy.denoiser, "decode", decode)
    assert list(timed(policy, "decoding", [Prompt("a")] * 8, 8, 10.0)) == [1, 2]


def test_training_passes_have_gradients_and_others_have_none(policy):
    assert all(each is not None for each in passes(policy, "training", [Prompt("a")] * 2)())
    for kind in ("sampling", "decoding"):
        assert not passes(policy, kind, [Prompt("a")] * 2)().requires_grad
