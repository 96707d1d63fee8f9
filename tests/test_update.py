import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from rediffuse.learning.batches import Batches
from rediffuse.learning.update import Learner
from rediffuse.lookup.parts import assemble
from rediffuse.processes.world import World
from rediffuse.rollout import Draws, collect
from rediffuse.runs.folder import RunFolder
from rediffuse.start import load_run
from rediffuse.types import Rollout, Transitions


def trained_once(advantages=None, lanes=1, **over):
    """The weights after one update, and its metrics."""
    config = tiny.config(prompts_per_epoch=7, images_per_prompt=1, **over)
    world = World(lanes=lanes)
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), world).run
    prompts = run.draw()
    rollout, scores = run.sample(prompts)
    given = (
        run.learner.advantages(scores.rewards, prompts)
        if advantages is None
        else torch.tensor(advantages, dtype=torch.float64)
    )
    metrics = run.learner.update(rollout, given, 0)
    return (
        [p.detach().clone() for p in run.learner.policy.denoiser.parameters().values()],
        metrics,
        run,
    )


def difference(a, b):
    moved = torch.cat([(x - y).flatten() for x, y in zip(a, b, strict=True)])
    return moved.abs().max().item()


KINDS = [
    {"name": "ddpo_is", "advantage": "batch", "clip_range": 0.1},
    {"name": "ddpo_sf", "advantage": "batch", "kl_weight": 1.0},
    {"name": "rwr", "inverse_temperature": 5.0},
    {"name": "rwr_sparse", "inner_epochs": 2, "among": "epoch", "percentile": 40},
]


def plan_of(algorithm):
    return {"algorithm": algorithm, "updates_per_epoch": 1 if algorithm["name"] == "ddpo_sf" else 2}


@pytest.mark.parametrize("algorithm", KINDS, ids=lambda algorithm: algorithm["name"])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 100])
def test_the_micro_batch_changes_nothing(micro_batch_size, algorithm):
    usual, before, _ = trained_once(micro_batch_size=8, **plan_of(algorithm))
    other, after, _ = trained_once(micro_batch_size=micro_batch_size, **plan_of(algorithm))
    assert difference(usual, other) < 1e-5
    for metric in ("loss", "grad_norm"):  # clipping and AdamW's first steps hide a gradient's size
        assert after[metric] == pytest.approx(before[metric], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("algorithm", KINDS, ids=lambda algorithm: algorithm["name"])
def test_the_lanes_change_not_a_bit(algorithm):
    assert (
        difference(
            trained_once(lanes=1, **plan_of(algorithm))[0],
            trained_once(lanes=3, **plan_of(algorithm))[0],
        )
        == 0
    )


def test_another_seed_changes_the_weights():
    """The control of the tests above."""
    assert difference(trained_once()[0], trained_once(seed=1)[0]) > 1e-4


def test_masked_samples_are_never_trained_on():
    masked = [1.0, math.nan, -1.0, math.nan, 0.5, -0.5, 2.0]
    zeroed = [value if math.isfinite(value) else 0.0 for value in masked]
    sf = {
        "algorithm": {"name": "ddpo_sf", "advantage": "batch"},
        "updates_per_epoch": 1,
        "optimizer": {"weight_decay": 0.0},
    }
    a, metrics, _ = trained_once(masked, **sf)
    b, _, _ = trained_once(zeroed, **sf)
    # A zero advantage adds nothing to the gradient but counts in the mean, which AdamW's first step divides out.
    assert all(p.isfinite().all() for p in a)
    assert difference(a, b) < 1e-4
    assert metrics["skipped_updates"] == 0


def test_a_gradient_that_is_not_finite_is_skipped_and_counted():
    before, metrics, _ = trained_once([1e300, 1.0, 0, 0, 0, 0, 0], updates_per_epoch=1)
    assert metrics["skipped_updates"] == 1
    assert all(p.isfinite().all() for p in before)


def test_the_gradient_is_the_mean_over_all_rows_of_the_minibatch():
    """Against the plainest loop: one row at a time, all steps, divided by their number."""
    config = tiny.config(algorithm={"name": "ddpo_sf", "advantage": "batch"}, updates_per_epoch=1)
    world = World(lanes=1)
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), world).run
    prompts = run.draw()
    rollout, scores = run.sample(prompts)
    advantages = run.learner.advantages(scores.rewards, prompts)
    parameters = list(run.learner.policy.denoiser.parameters().values())
    way, total = rollout.trajectory, [torch.zeros_like(p) for p in parameters]
    num_rows = len(prompts) * len(way.steps)
    for row in range(len(prompts)):
        for step in way.steps:
            conditioning = run.learner.policy.denoiser.encode([prompts[row]])
            law = run.learner.policy.act(way.path[row : row + 1, step], step[None], conditioning)
            value = (
                -law.log_prob(way.path[row : row + 1, step + 1])
                * advantages[rollout.indices[row]].float()
                / num_rows
            )
            for sum_, part in zip(
                total,
                torch.autograd.grad(value.sum(), parameters, materialize_grads=True),
                strict=True,
            ):
                sum_ += part
    seen = []
    run.learner.optimizer.step = lambda: seen.extend(p.grad.clone() for p in parameters)
    run.learner.update(rollout, advantages, 0)
    for got, want in zip(seen, total, strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)


def test_chosen_steps_depend_on_the_sample_not_on_who_drew_it():
    config = tiny.config(
        algorithm={"name": "ddpo_sf", "advantage": "batch", "steps_per_sample": 2},
        updates_per_epoch=1,
    )
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), World(lanes=1)).run
    prompts = run.draw()

    def chosen(indices):
        draws = Draws(indices, [prompts[i] for i in indices], (0, 0, "noise"))
        rollout = Rollout.joined(
            collect(run.learner.policy, draws, tiny.limits(4), run.world, Transitions), len(indices)
        )
        rows = run.learner._batches(rollout, torch.zeros(8)).rows(torch.arange(8), (0, 0))
        return {
            (rollout.indices[s].item(), k)
            for s, k in zip(rows.sample.tolist(), rows.k.tolist(), strict=True)
        }

    whole, even, odd = chosen(range(8)), chosen(range(0, 8, 2)), chosen(range(1, 8, 2))
    assert len(whole) == 16
    assert whole == even | odd


def test_no_other_random_number_is_drawn(monkeypatch):
    """Whatever torch's own generator has been used for, the same weights come out."""
    usual, _, _ = trained_once()
    real = Learner.update

    def disturbed(*args):
        torch.rand(7)
        return real(*args)

    monkeypatch.setattr(Learner, "update", disturbed)
    assert difference(usual, trained_once()[0]) == 0


def test_the_ratio_is_measured_before_the_first_update_alone(monkeypatch):
    """Log-probabilities that are off by 0.01 are seen; what the first update itself moves is not held against them."""
    usual = {"algorithm": {"inner_epochs": 2}, "learning_rate": 0.1}
    assert trained_once(**usual)[1]["ratio_drift"] < 1e-5
    assert trained_once(**usual)[1]["approx_kl"] > 1e-4
    real = Learner.update

    def off(self, rollout, *args):
        rollout.trajectory.log_probs.add_(0.01)
        return real(self, rollout, *args)

    monkeypatch.setattr(Learner, "update", off)
    assert trained_once(**usual)[1]["ratio_drift"] == pytest.approx(1 - math.exp(-0.01), abs=1e-4)


@pytest.mark.parametrize(("limit", "norm"), [(0.01, 0.01), (1e9, None)])
def test_the_gradient_is_clipped_to_its_norm(limit, norm, monkeypatch):
    seen = []
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self: seen.append(
            torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]])
        ),
    )
    _, metrics, _ = trained_once(optimizer={"max_grad_norm": limit}, updates_per_epoch=1)
    assert metrics["grad_norm"] > 0.02
    assert seen[0].norm().item() == pytest.approx(norm or metrics["grad_norm"], rel=1e-4)


def test_samples_without_a_weight_are_left_out_of_every_pass():
    """A percentile of 40 among seven leaves out three; two passes, so the loss is a mean over eight rows."""
    _, metrics, _ = trained_once(**plan_of(KINDS[3]))
    assert metrics["trained_samples"] == 4
    assert "approx_kl" not in metrics and "ratio_drift" not in metrics


def test_each_epoch_of_a_regression_begins_with_fresh_moments():
    def steps_taken(**options):
        _, _, run = trained_once(**plan_of({"name": "rwr", "inner_epochs": 1, **options}))
        run.epoch = 1
        prompts = run.draw()
        rollout, scores = run.sample(prompts)
        run.learner.update(rollout, run.learner.advantages(scores.rewards, prompts), 1)
        return next(iter(run.learner.optimizer.state.values()))["step"].item()

    assert steps_taken() == 2
    assert steps_taken(restart_optimizer=False) == 4


def test_the_first_moment_can_be_kept_in_fewer_bits():
    """What bf16 can hold, of a moment that was anything before."""

    def first_moments(precision):
        run = trained_once(optimizer={"first_moment": precision}, updates_per_epoch=1)[2]
        return torch.cat(
            [state["exp_avg"].flatten() for state in run.learner.optimizer.state.values()]
        )

    full, rounded = first_moments("fp32"), first_moments("bf16")
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert not torch.equal(full, full.bfloat16().float())
    torch.testing.assert_close(rounded, full, rtol=0.02, atol=1e-6)


def test_times_and_noise_are_each_samples_own_and_new_in_every_pass():
    config = tiny.config(algorithm={"name": "rwr"})
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), World(lanes=1)).run
    prompts = run.draw()
    rollout, _ = run.sample(prompts)
    batches = run.learner._batches(rollout, torch.ones(8))

    def batch(samples, inner):
        return batches.batch(batches.rows(torch.tensor(samples), (0, inner)), None)

    whole, part, later = batch(range(8), 0), batch([5, 2], 0), batch(range(8), 1)
    assert torch.equal(whole.noise[[5, 2]], part.noise) and torch.equal(
        whole.time[[5, 2]], part.time
    )
    assert not torch.equal(whole.noise, later.noise) and not torch.equal(whole.time, later.time)
    assert whole.time.min() >= 0 and whole.time.max() < 1000


def test_latents_of_images_encoded_again_are_drawn_anew_in_every_pass():
    """Around the encoder's mean with its standard deviation, 0.001 in the toy, and whoever else is in the batch."""
    config = tiny.config(algorithm={"name": "rwr", "learns_from": "samples"})
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), World(lanes=1)).run
    rollout, _ = run.sample(run.draw())
    batches = run.learner._batches(rollout, torch.ones(8))

    def drawn(samples, inner):
        return (
            batches.batch(batches.rows(torch.tensor(samples), (0, inner)), None).latents
            - rollout.trajectory.latents[samples]
        )

    first, again, later = drawn(range(8), 0), drawn(range(8), 0), drawn(range(8), 1)
    assert torch.equal(first, again) and torch.equal(first[[5, 2]], drawn([5, 2], 0))
    assert not torch.equal(first, later)
    assert first.std().item() == pytest.approx(1e-3, rel=0.15)


def test_the_divergence_from_the_pretrained_model_is_zero_at_first_and_holds_the_policy_back():
    sf = {"name": "ddpo_sf", "advantage": "batch"}
    _, first, _ = trained_once(**plan_of(sf | {"kl_weight": 10.0}))
    assert first["kl_to_pretrained"] == 0

    def moved(kl_weight):
        config = tiny.config(
            prompts_per_epoch=7, images_per_prompt=1, **plan_of(sf | {"kl_weight": kl_weight})
        )
        run = load_run(config, assemble(config), RunFolder(Path("nowhere")), World(lanes=1)).run
        for epoch in range(12):
            run.epoch = epoch
            prompts = run.draw()
            rollout, scores = run.sample(prompts)
            metrics = run.learner.update(
                rollout, run.learner.advantages(scores.rewards, prompts), epoch
            )
        return metrics["kl_to_pretrained"]

    assert moved(10.0) < 0.5 * moved(1e-9)


def test_a_first_moment_in_bf16_decays_by_beta_in_bf16():
    """By hand: 0.1 is kept as 205/2048; times 0.8984375 that is 184.2/2048, kept as 184/2048; the new gradient adds 0.1."""
    config = tiny.config(optimizer={"first_moment": "bf16", "betas": (0.9, 0.999)})
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1e-3, betas=(0.9, 0.999))
    learner = SimpleNamespace(config=config, optimizer=optimizer)
    moments = []
    for _ in range(400):
        weight.grad = torch.ones(1)
        Learner._decay_first_moments(learner)
        optimizer.step()
        moments.append(optimizer.state[weight]["exp_avg"].item())
        Learner._round_first_moments(learner)
    assert moments[:2] == pytest.approx([0.1, 184 / 2048 + 0.1], rel=1e-6)
    assert moments[-1] == pytest.approx(0.1 / (1 - 0.8984375), rel=4e-3)  # 1.5 % below the gradient


@pytest.mark.parametrize("reshuffle", [True, False])
def test_minibatches_are_drawn_anew_in_every_pass_or_never(reshuffle, monkeypatch):
    drawn, real = {}, Batches.rows

    def rows(batches, samples, key):
        drawn.setdefault(key[1], []).append(samples.tolist())
        return real(batches, samples, key)

    monkeypatch.setattr(Batches, "rows", rows)
    trained_once(**plan_of({"name": "rwr", "inner_epochs": 2, "reshuffle": reshuffle}))
    assert (drawn[0][:2] == drawn[1][:2]) is not reshuffle
