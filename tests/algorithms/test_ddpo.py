import math
from dataclasses import replace

import pytest
import tiny
import torch
from tiny import ToyDenoiser

from rediffuse.algorithms.ddpo_is import DDPOImportanceSampling
from rediffuse.algorithms.ddpo_sf import DDPOScoreFunction
from rediffuse.errors import ConfigError
from rediffuse.policy import DiffusionPolicy
from rediffuse.rollout import Draws, denoise
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import Prompt, Transitions


@pytest.fixture
def policy():
    denoiser = ToyDenoiser(8, seed=0)
    return DiffusionPolicy(denoiser, DDIM(num_steps=5).bind(denoiser.schedule))


@pytest.fixture
def batch(policy):
    with torch.no_grad():
        way = denoise(policy, Draws(range(6), [Prompt("a cat")] * 6, (0,)))
    rows, k = torch.arange(6), torch.arange(6) % len(way.steps)
    step = way.steps[k]
    return Transitions(
        way.path[rows, step],
        way.path[rows, step + 1],
        step,
        way.log_probs[rows, k],
        torch.tensor([1.0, -1.0, 2.0, 0.5, -0.5, 0.0]),
        policy.denoiser.encode([Prompt("a cat")] * 6),
    )


def test_ratio_is_one_before_the_first_update(policy, batch):
    for algorithm in (DDPOImportanceSampling(), DDPOScoreFunction()):
        assert algorithm.loss(policy, batch).log_ratio.abs().max() < 1e-6


def test_importance_sampling_loss_starts_at_minus_the_mean_advantage(policy, batch):
    loss = DDPOImportanceSampling(clip_range=0.1).loss(policy, batch)
    assert loss.value.item() == pytest.approx(-batch.advantage.mean().item(), abs=1e-5)
    assert loss.metrics["clip_fraction"] == 0


def test_both_estimators_agree_before_the_first_update(policy, batch):
    parameters = list(policy.denoiser.parameters().values())
    found = [
        torch.autograd.grad(algorithm.loss(policy, batch).value, parameters)
        for algorithm in (DDPOImportanceSampling(), DDPOScoreFunction())
    ]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_advantages_are_clipped():
    rewards = torch.tensor([0.0] * 30 + [100.0])
    got = DDPOScoreFunction(advantage="batch", advantage_clip=2.0).advantages(
        rewards, torch.zeros(31, dtype=torch.int64)
    )
    assert got.max() == 2.0


def test_equal_steps_weigh_by_inverse_sensitivity_with_mean_one(policy):
    steps = torch.tensor(policy.sampler.noisy).nonzero().flatten()
    weights = DDPOScoreFunction(equal_steps=True).step_weights(policy, steps)
    loudness = weights * policy.sensitivity()[steps]
    torch.testing.assert_close(loudness, loudness[:1].expand_as(loudness))
    assert weights.mean().item() == pytest.approx(1)


def test_sensitivity_by_hand(policy):
    # epsilon: d mean / d eps = sqrt(1 - a' - s^2) - sqrt(a' (1 - a) / a)
    sampler = policy.sampler
    a, a_next = (
        tiny.ToyDenoiser.schedule.alpha_bar[t].item() for t in (sampler.times[1], sampler.times[2])
    )
    std = math.sqrt((1 - a_next) / (1 - a) * (1 - a / a_next))
    want = abs(math.sqrt(1 - a_next - std**2) - math.sqrt(a_next * (1 - a) / a)) / std
    assert policy.sensitivity()[1].item() == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(("updates", "inner"), [(2, 1), (1, 3)])
def test_the_score_function_refuses_more_than_one_update(updates, inner):
    with pytest.raises(ConfigError, match="exactly one update"):
        DDPOScoreFunction(inner_epochs=inner).check(tiny.config(updates_per_epoch=updates))


def test_a_minimum_no_buffer_can_reach_is_refused():
    with pytest.raises(ConfigError, match="min_count: 17"):
        DDPOScoreFunction(buffer_size=16, min_count=17)


@pytest.mark.parametrize("kind", [DDPOImportanceSampling, DDPOScoreFunction])
def test_the_divergence_from_the_pretrained_model_by_hand(kind, policy, batch):
    """A mean that is off by half a standard deviation everywhere: 0.5 ** 2 / 2, times its weight."""
    law = policy.act(batch.state, batch.step, batch.conditioning)
    reference = law.mean.detach() + 0.5 * law.std.view(-1, 1, 1, 1)
    free = kind().loss(policy, batch)
    held = kind(kl_weight=3.0).loss(policy, replace(batch, reference_mean=reference))
    assert (held.value - free.value).item() == pytest.approx(3 * 0.125, rel=1e-4)
    assert held.metrics["kl_to_pretrained"] == pytest.approx(0.125, rel=1e-4)
