"""What is kept of an evaluation's samples."""

import pytest
import tiny
import torch

from rediffuse.evaluation.fixed_samples import MOST_TRAJECTORIES, FixedSamples
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.rollout import Draws, collect
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import CleanSamples, Prompt, Rollout, Transitions, TransitionsWithMeans

NUM_SAMPLES = 20


def policy_of(family):
    denoiser = family().load("cpu", 0)
    return DiffusionPolicy(denoiser, DDIM(num_steps=4).bind(denoiser.schedule))


def parts(keep, family=tiny.Toy):
    prompts = [Prompt(f"a cat {i // 2}") for i in range(NUM_SAMPLES)]
    draws = Draws(range(NUM_SAMPLES), prompts, (0, "kept"))
    return list(collect(policy_of(family), draws, tiny.limits(3), World(1), keep))


def received(given):
    made = FixedSamples(NUM_SAMPLES, images_per_prompt=2)
    for part in given:
        made.receive(part)
    return made


def test_all_images_are_kept_but_few_trajectories():
    given = parts(TransitionsWithMeans)
    whole, made = Rollout.joined(given, NUM_SAMPLES), received(given)
    assert torch.equal(made.rollout().samples, whole.samples)
    assert torch.equal(made.rollout().trajectory.path, whole.trajectory.path[:, -1:])
    firsts = list(range(0, 2 * MOST_TRAJECTORIES, 2))
    way = made.trajectories()
    assert way.indices.tolist() == firsts and len(way.samples) == 0
    assert torch.equal(way.trajectory.path, whole.trajectory.path[firsts])
    assert torch.equal(way.trajectory.means, whole.trajectory.means[firsts])


def test_means_are_those_of_the_random_steps():
    rollout, policy = parts(TransitionsWithMeans)[0], policy_of(tiny.Toy)
    way, seen = rollout.trajectory, policy.denoiser.encode(rollout.prompts)
    assert way.means.shape == (3, len(way.steps), 3, 4, 4)
    for k, step in enumerate(way.steps):
        law = policy.act(way.path[:, step], step.expand(3), seen)
        torch.testing.assert_close(law.mean, way.means[:, k])
        assert not torch.allclose(way.path[:, step + 1], way.means[:, k])


def test_trajectories_of_samples_that_are_not_finite_are_left_out():
    given = parts(TransitionsWithMeans, tiny.Sick)
    broken = {int(i) for part in given for i, f in zip(part.indices, part.faults, strict=True) if f}
    assert broken & set(range(0, NUM_SAMPLES, 2))
    kept = received(given).trajectories().indices.tolist()
    finite = [i for i in range(0, NUM_SAMPLES, 2) if i not in broken]
    assert kept == finite[:MOST_TRAJECTORIES]
    assert {i for i, fault in enumerate(received(given).rollout().faults) if fault} == broken


@pytest.mark.parametrize("keep", [CleanSamples, Transitions])
def test_without_means_there_are_no_trajectories(keep):
    assert received(parts(keep)).trajectories() is None
