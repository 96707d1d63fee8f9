"""The first update's gradients from sampling equal those of a second pass through the network."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny
import torch

from rediffuse.algorithms.ddpo_sf import DDPOScoreFunction
from rediffuse.errors import RediffuseError
from rediffuse.learning.update import Learner
from rediffuse.lookup.parts import assemble
from rediffuse.models._layer_record import LayerRecord
from rediffuse.processes.world import World
from rediffuse.runs.folder import RunFolder
from rediffuse.start import load_run

ADVANTAGES = (1.0, -1.0, 0.5, 2.0, -0.5, -2.0, 0.25)
CONVOLUTIONS = ("to_q", "to_out.0", "conv1", "conv2", "proj_in", "time_emb_proj")
SF = {"name": "ddpo_sf", "advantage": "batch"}
CASES = {
    "all steps": {"algorithm": SF},
    "chosen steps": {"algorithm": SF | {"steps_per_sample": 2}},
    "equal steps": {"algorithm": SF | {"steps_per_sample": 3, "equal_steps": True}},
    "a window of steps": {"algorithm": SF, "sampler": {"num_quiet_steps": 2}},
    "without guidance": {"algorithm": SF, "model": {"guidance_scale": 1.0}},
    "with convolutions": {"algorithm": SF, "model": {"lora_targets": CONVOLUTIONS}},
    "one row a pass": {"algorithm": SF, "rows": {"sampling": 5, "decoding": 3, "training": 1}},
    "importance sampling": {},
    "two updates": {"updates_per_epoch": 2},
    "two passes": {"algorithm": {"inner_epochs": 2, "steps_per_sample": 2}},
    "in bf16": {"algorithm": SF, "model": {"precision": "bf16"}},
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    tiny.build_pipeline(folder)
    return str(folder)


def updates(pipeline, advantages=ADVANTAGES, lanes=1, share=None, **over):
    """The gradient of each update of an epoch, its metrics and its rollout; share: the samples of this process."""
    usual = {
        "prompts_per_epoch": 7,
        "images_per_prompt": 1,
        "updates_per_epoch": 1,
        "micro_batch_size": 4,
        "algorithm": {"name": "ddpo_is", "advantage": "batch", "clip_range": 0.1},
        "model": {"name": "stable_diffusion", "source": pipeline},
    }
    config = tiny.config(**tiny.merged(usual, over))
    world = World(lanes=lanes)
    if share is not None:
        world.share = lambda num_samples: share
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), world).run
    # at the start the adapter's second matrices are 0, and so are the first ones' gradients
    for name, parameter in run.learner.policy.denoiser.parameters().items():
        torch.manual_seed(len(name))
        parameter.data += 0.02 * torch.randn_like(parameter)
    seen, prompts = [], run.draw()
    parameters = run.learner.policy.denoiser.parameters().values()
    run.learner.optimizer.step = lambda: seen.append([each.grad.clone() for each in parameters])
    first = run.learner.first_update(0)
    rollout, _ = run.sample(prompts, first)
    given = torch.tensor(advantages, dtype=torch.float64)
    return seen, run.learner.update(rollout, given, 0, first), rollout


def difference(one, other):
    """The relative distance of two gradients."""
    pairs = list(zip(one, other, strict=True))
    apart = torch.cat([(a - b).flatten() for a, b in pairs])
    return (apart.norm() / torch.cat([a.flatten() for a, _ in pairs]).norm()).item()


@pytest.mark.parametrize("over", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("masked", [(), (1, 4)], ids=["", "masked"])
def test_the_gradients_are_those_of_a_second_pass(over, masked, pipeline):
    given = [math.nan if i in masked else each for i, each in enumerate(ADVANTAGES)]
    usual, expected, _ = updates(pipeline, given, **over, one_pass=False)
    found, metrics, _ = updates(pipeline, given, **over, one_pass=True)
    assert len(found) == len(usual)
    for one, other in zip(found, usual, strict=True):
        limit = 5e-2 if "precision" in over.get("model", {}) else 5e-5  # bf16 rounds both
        assert difference(other, one) < limit
    for name in ("loss", "grad_norm", "trained_samples", "skipped_updates"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-6)


def test_the_first_update_makes_no_second_pass(pipeline, monkeypatch):
    """The pass that remains checks the updated policy, on one row."""
    rows, real = [], LayerRecord.gradients
    monkeypatch.setattr(
        LayerRecord,
        "gradients",
        lambda self, values, receive: rows.append(len(values)) or real(self, values, receive),
    )
    _, _, rollout = updates(pipeline, algorithm=SF, one_pass=True)
    assert sum(rows) == 7 * 3  # each sample's random steps, once
    assert rollout.trajectory.path.shape[1] == 3 < 5  # one step's states, and the latents
    rows.clear()
    _, _, rollout = updates(pipeline, algorithm=SF, one_pass=False)
    assert not rows and rollout.trajectory.path.shape[1] == 5


def test_lanes_change_no_bit(pipeline):
    over = {"algorithm": SF | {"steps_per_sample": 2}, "one_pass": True, "rows": {"sampling": 3}}
    one, other = (updates(pipeline, lanes=lanes, **over)[0] for lanes in (1, 3))
    assert difference(one[0], other[0]) == 0


@pytest.mark.parametrize("num_updates", [1, 2])
def test_the_gradients_of_two_processes_sum_to_those_of_one(num_updates, pipeline):
    over = {
        "updates_per_epoch": num_updates,
        "optimizer": {"max_grad_norm": 1e9},
        "one_pass": True,
        "evaluation": {"kl": False},
    }
    whole, even, odd = (
        updates(pipeline, share=share, **over)[0][0]
        for share in (None, range(0, 7, 2), range(1, 7, 2))
    )
    assert difference(whole, [a + b for a, b in zip(even, odd, strict=True)]) < 5e-5
    assert difference(whole, even) > 0.1  # the control


def test_a_run_of_other_gradients_would_be_seen(pipeline):
    """The control: the sums of another step's weight are not the gradient."""
    one, _, _ = updates(pipeline, algorithm=SF | {"equal_steps": True}, one_pass=True)
    other, _, _ = updates(pipeline, algorithm=SF, one_pass=False)
    assert difference(other[0], one[0]) > 0.1


@pytest.mark.parametrize(
    "over",
    [
        {"algorithm": SF | {"kl_weight": 1.0}},
        {"algorithm": {"name": "rwr"}},
        {"model": {"gradient_checkpointing": True}},
        {"model": {"train": "full"}},
        {"model": {"name": f"{tiny.FILE}:Toy", "source": None}},
    ],
    ids=["a penalty", "a regression", "checkpointing", "all weights", "another model"],
)
def test_where_it_cannot_be_a_second_pass_is_made(over, pipeline):
    model = {"name": "stable_diffusion", "source": pipeline, **over.get("model", {})}
    given = {key: value for key, value in model.items() if value is not None}
    algorithm = over.get("algorithm", SF)
    config = tiny.config(updates_per_epoch=1, model=given, algorithm=algorithm, one_pass=True)
    run = load_run(config, assemble(config), RunFolder(Path("nowhere")), World(lanes=1)).run
    assert run.learner.first_update(0) is None


@dataclass(frozen=True)
class Growing(DDPOScoreFunction):
    """Its factor is another for each row, which no sum of scores has."""

    def surrogate(self, log_prob, log_ratio, advantage):
        return super().surrogate(log_prob, log_ratio, advantage) * torch.arange(len(log_prob))


def test_an_algorithm_whose_gradient_is_no_sum_of_scores_is_refused(pipeline):
    with pytest.raises(RediffuseError, match="Growing: is_of_scores is true"):
        updates(pipeline, algorithm={"name": f"{__file__}:Growing"}, one_pass=True)


def test_the_drift_is_measured_where_later_updates_depend_on_it(pipeline, monkeypatch):
    """Log-probabilities that are off are seen although the first update needs no second pass."""
    real = Learner.update

    def off(self, rollout, *args):
        rollout.trajectory.log_probs.add_(0.01)
        return real(self, rollout, *args)

    monkeypatch.setattr(Learner, "update", off)
    _, metrics, _ = updates(pipeline, updates_per_epoch=2, one_pass=True)
    assert metrics["ratio_drift"] == pytest.approx(1 - math.exp(-0.01), abs=1e-4)
