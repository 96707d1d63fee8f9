import json
import os
import shutil
import warnings

import pytest
import torch
from killed import killed_at
from safetensors import SafetensorError

from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.runs import checkpoint
from rediffuse.runs.checkpoint import Checkpoint, load_newest, save, verify


def made(epoch):
    generator = torch.Generator().manual_seed(epoch)
    weights = {"a.weight": torch.randn(3, 4, generator=generator)}
    moments = {
        "exp_avg/a.weight": torch.randn(3, 4, generator=generator),
        "step/a.weight": torch.tensor(float(epoch)),
    }
    return Checkpoint(epoch, weights, moments, {"algorithm": {"statistics": {"5": [0.1, 1 / 3]}}})


@pytest.fixture
def folder(tmp_path):
    for epoch in (1, 2, 3):
        save(tmp_path, made(epoch), keep=2)
    return tmp_path


def same(a, b):
    tensors = all(torch.equal(a.weights[k], b.weights[k]) for k in b.weights) and all(
        torch.equal(a.optimizer[k], b.optimizer[k]) for k in b.optimizer
    )
    return tensors and a.epoch == b.epoch and a.state == b.state


def test_what_was_saved_is_loaded_to_the_bit_and_old_ones_are_pruned(folder):
    assert same(load_newest(folder), made(3))
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-00002", "epoch-00003"]


def test_the_best_one_stays_whatever_is_pruned(tmp_path):
    save(tmp_path, made(1), keep=2)
    checkpoint.call_best(tmp_path, 1)
    for epoch in (2, 3, 4):
        save(tmp_path, made(epoch), keep=2)
    assert checkpoint.epochs(tmp_path) == [4, 3, 1]
    assert same(checkpoint.load(tmp_path, "best"), made(1))
    checkpoint.call_best(tmp_path, 4)
    save(tmp_path, made(5), keep=2)
    assert checkpoint.epochs(tmp_path) == [5, 4]


def test_a_checkpoint_is_loaded_by_its_name(folder):
    assert same(checkpoint.load(folder), made(3))
    assert same(checkpoint.load(folder, "2"), made(2))
    assert same(checkpoint.load(folder, "epoch-00002"), made(2))
    for name in ("1", "best", "last", "", "-1"):
        with pytest.raises(ConfigError, match="there are newest, 3, 2"):
            checkpoint.load(folder, name)
    checkpoint.call_best(folder, 2)
    with pytest.raises(ConfigError, match="there are newest, best, 3, 2"):
        checkpoint.load(folder, "last")
    checkpoint.call_best(folder, None)
    assert checkpoint.best_epoch(folder) is None


def test_one_that_is_asked_for_by_name_and_damaged_is_not_replaced_by_another(folder):
    (folder / "epoch-00002" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="epoch-00002 is damaged"):
        checkpoint.load(folder, "2")


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"epoch": null}'])
def test_half_a_note_of_the_best_one_is_none(folder, torn):
    (folder / checkpoint.BEST).write_text(torn)
    assert checkpoint.best_epoch(folder) is None
    save(folder, made(4), keep=2)
    checkpoint.call_best(folder, 3)
    assert checkpoint.best_epoch(folder) == 3


def test_a_best_one_beyond_those_that_are_whole_is_forgotten(folder):
    checkpoint.call_best(folder, 3)
    checkpoint.set_aside_newer(folder, 3)
    assert checkpoint.best_epoch(folder) == 3
    checkpoint.set_aside_newer(folder, 2)
    assert checkpoint.best_epoch(folder) is None


FILES = ["weights.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete"])
def test_every_damage_is_seen_and_the_checkpoint_before_is_taken(folder, name, damage):
    path = folder / "epoch-00003" / name
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes({"flip": content, "truncate": content[:-3], "empty": b""}[damage])
    with pytest.warns(UserWarning, match="epoch-00003 is damaged.*Falling back"):
        assert same(load_newest(folder), made(2))


def test_a_whole_checkpoint_gives_no_warning(folder):
    """The control of the test above."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_newest(folder)


def test_swapped_files_are_seen(folder):
    a, b = (folder / f"epoch-0000{n}" / "weights.safetensors" for n in (2, 3))
    shutil.copy(a, b)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        verify(folder / "epoch-00003")


def test_a_manifest_without_a_file_is_incomplete(folder):
    path = folder / "epoch-00003" / "MANIFEST.json"
    files = json.loads(path.read_text())
    del files["state.json"]
    path.write_text(json.dumps(files))
    with pytest.raises(CheckpointError, match="incomplete"):
        verify(folder / "epoch-00003")


def test_none_whole_is_an_error(folder):
    for path in folder.glob("epoch-*/state.json"):
        path.write_text("{}")
    with (
        pytest.warns(UserWarning, match="Falling back"),
        pytest.raises(CheckpointError, match=r"epoch-00003.*epoch-00002"),
    ):
        load_newest(folder)


def test_a_full_disk_is_an_os_error(folder, monkeypatch):
    def full(tensors, path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"weights\.safetensors: I/O error: No space left"):
        save(folder, made(4), keep=2)
    assert same(load_newest(folder), made(3))


OPERATIONS = [
    (os, "fsync"),
    (os, "rename"),
    (checkpoint.shutil, "rmtree"),
    (checkpoint, "save_file"),
]


def test_a_kill_at_any_file_operation_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    found, limit, done = [], 0, False
    while not done:
        folder = tmp_path / str(limit)
        save(folder, made(1), keep=1)
        with monkeypatch.context() as patch:
            done = killed_at(
                limit, OPERATIONS, lambda folder=folder: save(folder, made(2), keep=1), patch
            )
        found.append(load_newest(folder).epoch)
        save(folder, made(3), keep=1)
        assert load_newest(folder).epoch == 3
        assert not list(folder.glob(".staged-*"))
        limit += 1
    assert len(found) > 8
    assert found == sorted(found)
    assert set(found) == {1, 2}


def test_zero_keeps_every_checkpoint(tmp_path):
    for epoch in (1, 2, 3, 4):
        save(tmp_path, made(epoch), keep=0)
    assert checkpoint.epochs(tmp_path) == [4, 3, 2, 1]
