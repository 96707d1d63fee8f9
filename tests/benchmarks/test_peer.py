import json

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import peer
from benchmarks._loop import epochs_alone
from benchmarks._peer_draws import given_draws
from benchmarks._peer_gate import compared
from benchmarks._peer_job import SEED, Job, reward
from benchmarks._peer_ours import Recorder, options
from benchmarks._pipelines import ANIMALS, build
from rediffuse.maths import noise
from rediffuse.prompts.text_file import TextFile

JUDGED = ("log_probs", "loss", "update")


def recorded(change=0.0, gradient=0.0, log_prob=0.0):
    """One epoch of one weight, whose results differ from the usual ones as told."""
    before = torch.tensor([1.0, 2.0])
    return {
        "before.a": before,
        "after.a": before + torch.tensor([0.3 + change, 0.4]),
        "gradient.a": torch.tensor([3.0 + gradient, 4.0]),
        "log_probs": torch.tensor([[0.5, 1.0], [1.5, 2.0 + log_prob]]),
    }


def test_equal_sides_pass_the_gate():
    gate = compared(recorded(), recorded(), (0.1, 0.1), JUDGED)
    assert gate.failures == []
    assert gate.update == gate.gradient == gate.log_probs == 0


def test_differences_are_relative_to_the_update_and_the_gradient():
    gate = compared(recorded(), recorded(change=5e-4, gradient=0.05), (0.0, 0.0), JUDGED)
    assert gate.update == pytest.approx(5e-4 / 0.5, rel=1e-3)
    assert gate.gradient == pytest.approx(0.05 / 5)


@pytest.mark.parametrize(
    ("ours", "loss", "judged", "name"),
    [
        (recorded(change=1e-3), 0.0, JUDGED, "update"),
        (recorded(log_prob=2e-4), 0.0, JUDGED, "log_probs"),
        (recorded(), 2e-5, JUDGED, "loss"),
        (recorded(gradient=1e-2), 0.0, ("gradient",), "gradient"),
        (recorded(change=float("nan")), 0.0, JUDGED, "update"),
    ],
)
def test_the_gate_refuses_what_differs(ours, loss, judged, name):
    (failure,) = compared(recorded(), ours, (0.0, loss), judged).failures
    assert failure.startswith(f"{name} differs by")


def test_what_a_shape_does_not_judge_may_differ():
    assert not compared(recorded(), recorded(change=0.1), (0.0, 0.0), ("gradient",)).failures


def test_sides_that_begin_differently_are_refused():
    other = {**recorded(), "before.a": torch.tensor([1.0, 2.1])}
    with pytest.raises(ValueError, match="begin with different weights"):
        compared(recorded(), other, (0.0, 0.0), JUDGED)
    more = {**recorded(), "before.b": torch.zeros(1)}
    with pytest.raises(ValueError, match="train different weights"):
        compared(recorded(), more, (0.0, 0.0), JUDGED)


def run_of(*whole):
    """A run whose epochs took so many CPU seconds, half of them sampling."""
    epochs = [
        {
            "whole": each,
            "sampling": each / 2,
            "training": each / 2,
            "loss": 0.0,
            "approx_kl": 1e-9,
            "clip_fraction": 0.25,
        }
        for each in whole
    ]
    return {"epochs": epochs, "growth_bytes": 50_000_000, "chosen": {"training": 8}}


def test_a_ratio_is_of_medians_without_the_first_epoch():
    above = [run_of(100, 4, 6, 5), run_of(100, 8, 8, 8), run_of(100, 3, 3, 3)]
    below = [run_of(1, 2, 2, 2)] * 3
    assert peer.ratios(above, below)["whole"] == {"median": 2.5, "min": 1.5, "max": 4.0}


class Fakes:
    """Both sides, as quick as told, without a process."""

    def __init__(self, folder, peers, ours, gradient=0.0):
        self.folder, self.number, self.gradient = folder, 0, gradient
        self.seconds = {"peer": iter(peers), "ours": iter(ours)}

    def gate(self, batch, updates):
        return compared(recorded(), recorded(gradient=self.gradient), (0, 0), ("gradient",))

    def job(self, batch, updates, epochs):
        return Job("", "", "", 16, 10, batch, updates, epochs)

    def peer(self, job):
        return self._done("peer")

    def ours(self, job):
        return self._done("ours")

    def _done(self, side):
        self.number += 1
        job = Job("", str(self.folder / f"{self.number}"), "", 16, 10, 1, 1, 2)
        job.write()
        seconds = next(self.seconds[side])
        job.result.write_text(json.dumps(run_of(9, seconds)))
        return job


def test_each_run_of_ours_stands_between_two_of_the_peer(tmp_path):
    found = peer.comparison(Fakes(tmp_path, [4, 6, 6], [2, 2]), 1, 2, pairs=2, epochs=2)
    assert found["ratio"]["whole"] == {"median": 2.5, "min": 2, "max": 3}
    assert found["noise_floor"]["whole"]["min"] == pytest.approx(4 / 6)
    assert found["ours"]["growth_megabytes"] == 50
    assert found["chosen"] == {"training": 8}
    text = peer.lines_of(found)
    assert "2.50 (2.00–3.00)" in text
    assert "0.250" in text


def test_a_failed_gate_gives_no_number_and_exit_code_1(tmp_path, monkeypatch, capsys):
    fakes = Fakes(tmp_path, [], [], gradient=1.0)
    monkeypatch.setattr(peer, "Sides", lambda *_: fakes)
    monkeypatch.setattr("sys.argv", ["peer", "--update-json"])
    monkeypatch.setattr(peer, "RESULTS", tmp_path / "peer.json")
    assert peer.main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "gradient differs by 0.2, more than 0.0001" in err
    assert not (tmp_path / "peer.json").exists()


def test_the_file_keeps_other_shapes_and_configurations_and_names_no_place(tmp_path, monkeypatch):
    path = tmp_path / "peer.json"
    path.write_text('{"mini": 1}')
    monkeypatch.setattr(peer, "RESULTS", path)
    for updates, ratio in ((2, 1.5), (1, 2.5), (2, 1.7)):
        peer._update("tiny", {}, {"batch": 4, "updates": updates, "ratio": ratio})
    written = json.loads(path.read_text())
    assert written["mini"] == 1
    assert [each["ratio"] for each in written["tiny"]["configurations"]] == [2.5, 1.7]
    assert written["tiny"]["machine"]["torch"] == torch.__version__
    assert "/" not in path.read_text()


def test_the_shared_reward_has_no_offset():
    images = torch.full((1, 3, 4, 4), 0.7)
    assert reward(images).item() == 0
    images[..., :2] = 0.9
    assert reward(images).item() == pytest.approx(0.2)


def test_our_side_records_its_own_loop_and_draws_what_the_peer_is_given(tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(ANIMALS))
    pipeline = build("smallest", tmp_path / "pipeline")
    job = Job(str(pipeline), str(tmp_path), str(prompts), 2, 2, 1, 1, 1, record=True)
    recorder = Recorder(job)
    with epochs_alone(
        {**options(job), "one_pass": False},
        tmp_path / "run",
        lambda images, _: reward(images),
        [recorder],
    ) as run:
        epoch = run.step()
        shape = run.learner.policy.denoiser.latent_shape
    generators = [noise.generator(SEED, 0, "noise", index) for index in range(2)]
    assert torch.equal(epoch.rollout.trajectory.path[:, 0], noise.draw(generators, shape))
    given = TextFile(prompts).draw(2, noise.generator(SEED, 0, "prompts"))
    assert [prompt.text for prompt in epoch.prompts] == [prompt.text for prompt in given]
    assert not compared(recorder.recorded, recorder.recorded, (0, 0), JUDGED).failures
    changed = [
        not torch.equal(value, recorder.recorded[name.replace("before", "after")])
        for name, value in recorder.recorded.items()
        if name.startswith("before.")
    ]
    assert any(changed)
    (row,) = recorder.epochs
    assert 0 < row["sampling"] + row["training"] <= row["whole"]


def test_the_peer_is_given_noise_by_batch_and_step_and_one_order(tmp_path):
    drawn, order = torch.randn(4, 3, 2), torch.tensor([2, 0, 3, 1])
    save_file({"noise": drawn, "order": order}, tmp_path / "draws")
    with given_draws(str(tmp_path / "draws"), batch=2):
        calls = [torch.randn((2, 2), device="cpu") for _ in range(6)]
        orders = [torch.randperm(4), torch.randperm(3, device="cpu")]
    of_batches = [drawn[rows, step] for rows in (slice(0, 2), slice(2, 4)) for step in range(3)]
    assert all(map(torch.equal, calls, of_batches))
    assert orders[0].tolist() == [2, 0, 3, 1]
    assert orders[1].tolist() == [0, 1, 2]
    assert torch.randn(5).shape == (5,)
