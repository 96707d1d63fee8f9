"""`rediffuse.train` as a notebook calls it."""

import threading
from pathlib import Path

import pytest
import tiny
import torch

import rediffuse
from rediffuse.config.recipes import config_from, read_recipe, resolved
from rediffuse.errors import ConfigError, RunError
from rediffuse.processes.world import World

TOY = {
    "model": {"name": f"{tiny.FILE}:Toy"}, "sampler": {"num_steps": 4}, "reward": "redness", "epochs": 1, "prompts_per_epoch": 4,
    "images_per_prompt": 1, "evaluation": {"num_prompts": 2, "images_per_prompt": 1, "held_out": []},
}  # fmt: skip


def test_a_recipe_is_trained_by_its_name_with_options_over_it(tmp_path):
    rows = rediffuse.train("demo/incompressibility", tmp_path / "run", **TOY)
    assert len(rows) == 1 and "reward_redness" in rows[0]


def test_keys_and_values_are_a_run_too(tmp_path):
    assert (
        len(
            rediffuse.train(
                {**TOY, "sampler": {"name": "ddim", "num_steps": 4}}, tmp_path / "run", epochs=2
            )
        )
        == 2
    )


def test_a_run_is_the_same_whatever_it_is_named_by(tmp_path):
    usual = resolved(
        read_recipe("demo/incompressibility"), {"epochs": 4, "algorithm": {"name": "rwr"}}
    )
    assert config_from("demo/incompressibility", {"epochs": 4, "algorithm": "rwr"}) == usual
    assert (
        config_from({"extends": "demo/incompressibility", "epochs": 4, "algorithm": "rwr"}, {})
        == usual
    )
    assert config_from(usual, {"seed": 3}).seed == 3 and config_from(usual, {}) is usual
    path = tmp_path / "mine.yaml"
    path.write_text("extends: demo/incompressibility\nepochs: 4\nalgorithm: {name: rwr}\n")
    assert config_from(path, {}) == usual == config_from(str(path), {})
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        rediffuse.train("demo/incompressibility", epoch=4)
    with pytest.raises(ConfigError, match="No recipe 'demo/nothing'"):
        rediffuse.train("demo/nothing")


def test_a_file_may_ask_for_no_more_than_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text("extends: demo/incompressibility\nreward: {name: 'evil.py:f'}\n")
    with pytest.raises(ConfigError, match=r"evil.py:f \(reward.name\)"):
        rediffuse.train("theirs.yaml", tmp_path / "run")


def test_a_second_training_in_another_thread_is_refused_in_a_sentence_and_harms_nothing(tmp_path):
    refused = []

    def second():
        with pytest.raises(
            RunError, match="in another thread: use a process for each run"
        ) as error:
            rediffuse.train(tiny.config(), tmp_path / "second")
        refused.append(error)

    def in_a_thread(images, prompts):
        if not refused:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        return tiny.redness_2(images, prompts)

    assert len(rediffuse.train(tiny.config(), tmp_path / "first", reward=in_a_thread)) == 2
    assert len(refused) == 1 and not (tmp_path / "second").exists()
    with World.joined(1):  # and it is free again
        pass


def test_another_default_dtype_is_refused_in_a_sentence_before_there_is_a_folder(tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(
            ConfigError,
            match=r"default dtype is torch\.float64.*torch\.set_default_dtype\(torch\.float32\)",
        ):
            rediffuse.train("demo/incompressibility", tmp_path / "run", **TOY)
    finally:
        torch.set_default_dtype(torch.float32)
    assert not (tmp_path / "run").exists()
