import math
from pathlib import Path

import pytest
import tiny
import torch
from tiny import ToyDenoiser

from rediffuse.algorithms.rwr import RewardWeightedRegression
from rediffuse.algorithms.rwr_sparse import SparseRegression
from rediffuse.errors import ConfigError
from rediffuse.lookup.parts import assemble
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.runs.folder import RunFolder
from rediffuse.samplers.ddim import DDIM
from rediffuse.start import load_run, train
from rediffuse.types import CleanSamples, Prompt

pytestmark = pytest.mark.usefixtures("without_charts")

GROUPS = torch.tensor([1, 1, 2, 2])


def test_weights_are_a_softmax_of_mean_one():
    rewards = torch.tensor([0.0, math.log(3), 0.0, 0.0])
    got = RewardWeightedRegression(inverse_temperature=1.0).advantages(rewards, GROUPS)
    torch.testing.assert_close(got, torch.tensor([4 / 6, 2.0, 4 / 6, 4 / 6]))
    got = RewardWeightedRegression(inverse_temperature=1.0, per_prompt=True).advantages(
        rewards, GROUPS
    )
    torch.testing.assert_close(got, torch.tensor([0.5, 1.5, 1.0, 1.0]))


def kept(algorithm, rewards):
    weights = algorithm.advantages(torch.tensor(rewards), GROUPS)
    assert (weights[weights.isfinite()] == 1).all()
    return weights.isfinite().tolist()


def test_what_the_percentile_is_of():
    rewards = [1.0, 2.0, 8.0, 9.0]
    assert kept(SparseRegression(), rewards) == [False, True, False, True]
    assert kept(SparseRegression(among="epoch"), rewards) == [False, False, False, True]


def test_the_best_of_each_draw_are_kept_where_a_prompt_is_drawn_twice(tmp_path):
    """As published: 256 batches of 32 images of one prompt give 1,024, whichever prompts are drawn."""
    config = tiny.config(
        algorithm={"name": "rwr_sparse"},
        prompts_per_epoch=256,
        images_per_prompt=32,
        updates_per_epoch=8,
    )
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), World(lanes=1)).run
    rewards = torch.rand(256 * 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = run.learner.advantages(rewards, [Prompt("a cat")] * 3200 + [Prompt("a dog")] * 4992)
    assert weights.isfinite().sum() == 1024 == run.learner.algorithm.num_trained(config)
    assert (weights.view(256, 32).isfinite().sum(1) == 4).all()


def test_the_hundredth_percentile_is_the_best():
    assert kept(SparseRegression(percentile=100, among="epoch"), [1.0, 9.0, 2.0, 9.0]) == [
        False,
        True,
        False,
        True,
    ]


def test_all_so_far_are_those_of_this_epoch_one_draw_after_another():
    """By hand, groups of two: the medians are 1.5 of the first draw's 1 and 2; 2 of 1, 2, 0, 9. A second epoch begins anew."""
    algorithm = SparseRegression(among="all_so_far", percentile=50)
    for _ in range(2):
        assert kept(algorithm, [1.0, 2.0, 0.0, 9.0]) == [False, True, False, True]
    # none of the second draw: the median is 5
    assert kept(algorithm, [8.0, 9.0, 1.0, 2.0]) == [
        False,
        True,
        False,
        False,
    ]


def test_what_reaches_a_threshold_is_kept_however_little_that_is():
    algorithm = SparseRegression(threshold=0.65)
    assert kept(algorithm, [2 / 3, 1 / 3, 0.0, 1.0]) == [True, False, False, True]
    assert kept(algorithm, [0.0, 0.0, 0.0, 0.0]) == [False] * 4
    # which a percentile of each prompt's images could not do with
    algorithm.check(tiny.config(images_per_prompt=1))


def test_an_epoch_of_which_nothing_is_kept_changes_nothing_and_says_so(tmp_path, capsys):
    config = tiny.config(epochs=1, algorithm={"name": "rwr_sparse", "threshold": 9.0})
    [metrics] = train(config, tmp_path / "run")
    assert (
        metrics["trained_samples"] == 0
        and "images/s   no samples to train on\n" in capsys.readouterr().out
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_loss_is_the_weighted_mean_of_the_error_of_what_the_network_predicts(
    prediction, monkeypatch
):
    """A network that says 0: the error is the target's mean square, by hand at a time where alpha_bar is 0.64."""
    denoiser = ToyDenoiser(8, seed=0)
    schedule = type(denoiser.schedule)(torch.tensor([0.64]), 1.0, prediction=prediction)
    monkeypatch.setattr(denoiser, "schedule", schedule)
    monkeypatch.setattr(denoiser, "predict", lambda x, time, conditioning: torch.zeros_like(x))
    policy = DiffusionPolicy(denoiser, DDIM(num_steps=1).bind(schedule))
    batch = CleanSamples(
        latents=torch.tensor([2.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4),
        noise=torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4),
        time=torch.zeros(2, dtype=torch.int64),
        weight=torch.tensor([0.5, 1.5]),
        conditioning=denoiser.encode([Prompt("a cat")] * 2),
    )
    targets = {
        "epsilon": (1.0, 3.0),
        "v_prediction": (0.8 * 1 - 0.6 * 2, 0.8 * 3 - 0.6 * 1),
        "sample": (2.0, 1.0),
    }[prediction]
    want = (0.5 * targets[0] ** 2 + 1.5 * targets[1] ** 2) / 2
    assert RewardWeightedRegression().loss(policy, batch).value.item() == pytest.approx(
        want, rel=1e-6
    )


def test_regression_without_guidance_is_of_the_networks_own_output(pipeline):
    """On a model that is sampled with guidance 5, against the same model that has none."""
    losses = {}
    for scale, guided in ((5.0, True), (5.0, False), (1.0, True)):
        denoiser = tiny.Tiny(path=pipeline, guidance_scale=scale).load("cpu", 0)
        policy = DiffusionPolicy(denoiser, DDIM(num_steps=2).bind(denoiser.schedule))
        generator = torch.Generator().manual_seed(0)
        latents, added = torch.randn(2, 2, *denoiser.latent_shape, generator=generator)
        batch = CleanSamples(
            latents,
            added,
            torch.tensor([100, 900]),
            torch.ones(2),
            denoiser.encode([Prompt("a cat")] * 2),
        )
        losses[scale, guided] = (
            RewardWeightedRegression(guided=guided).loss(policy, batch).value.item()
        )
    assert losses[5.0, False] == losses[1.0, True] != losses[5.0, True]


@pytest.mark.parametrize("among", ["prompt", "epoch", "all_so_far"])
def test_equal_rewards_of_double_precision_reach_their_own_percentile(among):
    rewards = torch.tensor([1 / 3, 2 / 3, 2 / 3], dtype=torch.float64)
    weights = SparseRegression(among=among, percentile=50).advantages(rewards, torch.zeros(3))
    assert weights.isfinite().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("algorithm", "plan", "said"),
    [
        ({}, {"images_per_prompt": 1}, "images_per_prompt: with 1"),
        (
            {},
            {"images_per_prompt": 4, "prompts_per_epoch": 2, "updates_per_epoch": 3},
            "but of 8 only 2 reach percentile 90",
        ),
        ({"among": "epoch"}, {"updates_per_epoch": 2}, "but of 8 only 1 reach percentile 90"),
    ],
)
def test_a_plan_that_leaves_too_little_or_nothing_out(algorithm, plan, said):
    with pytest.raises(ConfigError, match=said):
        SparseRegression(**algorithm).check(tiny.config(**plan))
    SparseRegression(percentile=0).check(tiny.config(updates_per_epoch=8))
