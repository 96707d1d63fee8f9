"""What a run decides when it begins is written into its folder, and is what it goes on with."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch

from rediffuse.config.schema import DEFAULT_ROWS, Rows, from_yaml
from rediffuse.costs.devices import on_this_machine
from rediffuse.lookup.parts import assemble
from rediffuse.planning.decide import decided, local_size
from rediffuse.planning.work import decided_rows, useful_rows, workload
from rediffuse.start import resume, train

AUTO = {"micro_batch_size": "auto"}
EMOJI = {"model": {"name": "emoji"}, "sampler": {"name": "ddim", "num_steps": 4, "eta": 1.0}}


def world(size=1, rank=0, least=None):
    """One process of several; the others have `least` rows of each kind."""

    def summed(tensors):
        if tensors[0].ndim < 2 or least is None:
            return tensors
        whole = tensors[0].clone()
        whole[[other for other in range(size) if other != rank]] = float(least)
        return [whole]

    lanes = SimpleNamespace(number=1)
    return SimpleNamespace(
        size=size, rank=rank, device="cpu", lanes=lanes, summed=summed, any=lambda here: here
    )


def test_a_run_writes_its_rows_and_resumes_with_them(tmp_path):
    config = tiny.config(**AUTO, epochs=1)
    assert (config.rows, config.one_pass) == (Rows(), "auto")
    train(config, tmp_path / "run")
    written = from_yaml(tmp_path / "run" / "config.yaml")
    assert written.rows == Rows(DEFAULT_ROWS, DEFAULT_ROWS, DEFAULT_ROWS)
    assert written.one_pass is False
    resume(tmp_path / "run", epochs=2)
    assert from_yaml(tmp_path / "run" / "config.yaml").rows == written.rows


def test_a_run_with_a_micro_batch_of_before_resumes_as_it_was(tmp_path):
    train(tiny.config(epochs=1, micro_batch_size=3), tmp_path / "run")
    written = from_yaml(tmp_path / "run" / "config.yaml")
    assert (written.micro_batch_size, written.rows) == (3, Rows())
    assert written.rows_for("training") == 3


def test_explicit_numbers_win_over_measured_ones_and_those_over_the_rule():
    config = tiny.config(**AUTO, **EMOJI, rows={"sampling": 7})
    parts = assemble(config)
    found = decided(config, parts, world(), {"training": 5, "sampling": 6})
    assert (found.rows.sampling, found.rows.training) == (7, 5)
    assert found.rows.decoding == decided(config, parts, world()).rows.decoding
    explicit = replace(config, micro_batch_size=2, rows=Rows())
    assert decided(explicit, parts, world(), {"training": 5}).rows == Rows()


def test_all_processes_have_the_rows_of_the_one_with_the_fewest():
    config = tiny.config(**AUTO, **EMOJI)
    parts = assemble(config)
    assert decided(config, parts, world(size=2, least=1)).rows == Rows(1, 1, 1)
    own = decided(config, parts, world(size=2, least=1000)).rows  # the control
    assert min(own.sampling, own.decoding, own.training) > 1


def test_the_work_of_a_process_follows_the_configuration(monkeypatch):
    config = tiny.config(**EMOJI, algorithm={"name": "ddpo_is", "steps_per_sample": 2})
    work = workload(config, assemble(config), size=2)
    assert (work.samples, work.num_steps, work.trained_steps, work.updates) == (4, 4, 2, 2)
    assert work.rows_per_update == 4
    assert work.first_update_samples == 2
    assert work.keeps_states
    assert useful_rows(config, assemble(config)) == {"sampling": 8, "decoding": 8, "training": 8}
    regression = tiny.config(algorithm={"name": "rwr", "learns_from": "samples"})
    work = workload(regression, assemble(regression))
    assert (work.trained_steps, work.keeps_states, work.encodes, work.inner_epochs) == (
        1,
        False,
        True,
        5,
    )
    assert not work.allows_one_pass
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert local_size() == 4


@pytest.mark.parametrize("one_pass", [True, False])
def test_one_pass_is_as_it_is_set(one_pass):
    config = tiny.config(**AUTO, **EMOJI, one_pass=one_pass)
    assert decided(config, assemble(config), world()).one_pass is one_pass


def test_rows_are_those_of_the_device():
    config = tiny.config(**AUTO, **EMOJI, prompts_per_epoch=64)
    parts = assemble(config)
    work, model = workload(config, parts), parts.family.costs()
    cpu, card = on_this_machine(None, 2**34, 1), on_this_machine("NVIDIA H100 PCIe")
    few, many = (decided_rows(config, model, each, work, one_pass=False) for each in (cpu, card))
    assert few.training < many.training


def test_measured_rows_are_written(tmp_path, monkeypatch):
    from rediffuse.planning import measure

    monkeypatch.setattr(measure, "SECONDS", 0.3)
    threads = torch.get_num_threads()
    train(tiny.config(**AUTO, epochs=1), tmp_path / "run", measure=True)
    rows = from_yaml(tmp_path / "run" / "config.yaml").rows
    assert 1 <= rows.sampling <= 8
    assert 1 <= rows.training <= 16
    assert rows != Rows(DEFAULT_ROWS, DEFAULT_ROWS, DEFAULT_ROWS)
    assert torch.get_num_threads() == threads
