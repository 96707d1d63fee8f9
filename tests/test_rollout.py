import pytest
import tiny
import torch
from tiny import ToyDenoiser

from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.rollout import Also, Draws, collect, denoise
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import CleanSamples, EncodedSamples, Prompt, Rollout, Transitions

PROMPTS = [Prompt(text) for text in ("a cat", "a dog", "a cat", "an ant", "a whale")]


@pytest.fixture
def policy():
    denoiser = ToyDenoiser(8, seed=0)
    return DiffusionPolicy(denoiser, DDIM(num_steps=5).bind(denoiser.schedule))


def sampled(policy, size, lanes=1, indices=range(5), keep=Transitions):
    draws = Draws(list(indices), [PROMPTS[i] for i in indices], (3, 0, "noise"))
    return Rollout.joined(
        collect(policy, draws, tiny.limits(size), World(lanes=lanes), keep), len(indices)
    )


def test_shapes(policy):
    rollout = sampled(policy, 2)
    way = rollout.trajectory
    assert way.path.shape == (5, 6, 3, 4, 4)
    assert way.steps.tolist() == [0, 1, 2, 3]  # the last draws nothing
    assert way.log_probs.shape == (5, 4)
    assert rollout.samples.shape == (5, 3, 4, 4)
    assert rollout.groups[0] == rollout.groups[2] != rollout.groups[1]
    assert torch.equal(way.latents, way.path[:, -1])


@pytest.mark.parametrize(("size", "lanes"), [(1, 1), (2, 3), (5, 1)])
def test_neither_micro_batch_nor_lanes_change_what_is_sampled(policy, size, lanes):
    usual, other = sampled(policy, 3), sampled(policy, size, lanes)
    assert torch.equal(usual.trajectory.path[:, 0], other.trajectory.path[:, 0])
    torch.testing.assert_close(usual.samples, other.samples, atol=1e-6, rtol=0)


def test_a_share_of_the_samples_is_the_same_samples(policy):
    whole, part = sampled(policy, 5), sampled(policy, 5, indices=[1, 3])
    torch.testing.assert_close(whole.samples[[1, 3]], part.samples, atol=1e-6, rtol=0)


def test_stored_log_probs_are_those_of_the_stored_steps(policy):
    way = sampled(policy, 5).trajectory
    for k, step in enumerate(way.steps):
        law = policy.act(way.path[:, step], step.expand(5), policy.denoiser.encode(PROMPTS))
        torch.testing.assert_close(law.log_prob(way.path[:, step + 1]), way.log_probs[:, k])


def test_a_deterministic_sampler_has_no_random_steps():
    denoiser = ToyDenoiser(8, seed=0)
    policy = DiffusionPolicy(denoiser, DDIM(num_steps=4, eta=0).bind(denoiser.schedule))
    way = denoise(policy, Draws([0], PROMPTS[:1], (0,)))
    assert way.log_probs.shape == (1, 0)


def test_groups_mean_the_same_everywhere():
    assert Prompt("a cat").group == Prompt("a cat", {"seen": 3}).group != Prompt("a dog").group


def test_who_does_not_learn_from_the_way_keeps_its_end_alone(policy):
    whole, end = sampled(policy, 2), sampled(policy, 2, keep=CleanSamples).trajectory
    assert torch.equal(end.path, whole.trajectory.path[:, -1:])
    assert end.steps.shape == (0,) and end.log_probs.shape == (5, 0)
    again = sampled(policy, 2, keep=EncodedSamples).trajectory
    # the toy's decoder, undone
    torch.testing.assert_close(again.latents, whole.trajectory.latents, atol=1e-4, rtol=1e-4)


class Preparing(ToyDenoiser):
    def prepare(self, prompts):
        self.prepared = [prompt.text for prompt in prompts]


def test_all_prompts_are_prepared_before_the_first_batch():
    """So that a text encoder is moved to a device once."""
    denoiser = Preparing(8, seed=0)
    policy = DiffusionPolicy(denoiser, DDIM(num_steps=2).bind(denoiser.schedule))
    others = [Also(Draws([0], [Prompt("a wolf")], (1,)), lambda part: None)]
    draws = Draws(range(5), PROMPTS, (0,))
    rollouts = collect(policy, draws, tiny.limits(2), World(lanes=1), others=others)
    next(rollouts)
    assert denoiser.prepared == [*(prompt.text for prompt in PROMPTS), "a wolf"]


def test_a_window_of_random_steps_keeps_the_states_around_them():
    denoiser = ToyDenoiser(8, seed=0)
    sampler = DDIM(num_steps=6, num_quiet_steps=3).bind(denoiser.schedule)
    policy = DiffusionPolicy(denoiser, sampler)
    way = sampled(policy, 5).trajectory
    assert way.steps.tolist() == [0, 1, 2] and list(way.kept) == [0, 1, 2, 3, 6]
    assert way.path.shape[1] == 5 and not way.has_states(3) and way.has_states(2)
    for k, step in enumerate(way.steps):
        before, after = (way.states(torch.arange(5), (step + i).expand(5)) for i in (0, 1))
        law = policy.act(before, step.expand(5), denoiser.encode(PROMPTS))
        torch.testing.assert_close(law.log_prob(after), way.log_probs[:, k])
    assert torch.equal(way.states(torch.arange(5), torch.full((5,), 6)), way.latents)
