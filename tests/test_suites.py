import json
from dataclasses import replace

import pytest
import tiny
import torch
from PIL import Image
from rich.console import Console

from rediffuse import train
from rediffuse.errors import ConfigError
from rediffuse.evaluation import table
from rediffuse.evaluation.suites import Question, evaluate, gained

REWARDS = """
import torch

def of_cats(images, prompts):
    if not any("cat" in prompt.text for prompt in prompts):
        raise ValueError("knows nothing but cats")
    return images[:, 0].mean((1, 2))
"""
SMALL = Question(("own", "everyday_objects"), num_prompts=3, images_per_prompt=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites") / "run"
    train(tiny.config(epochs=6, learning_rate=3e-2, prompts={"name": f"{tiny.FILE}:Few"}), folder)
    return folder


def test_what_was_learned_on_two_prompts_is_measured_on_others(run):
    found = evaluate(run, SMALL)
    own, objects = found["suites"]
    assert (own["num_prompts"], objects["num_prompts"], objects["num_images"]) == (2, 3, 12)
    for suite in (own, objects):
        row = suite["rewards"]["redness"]
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["difference"] == pytest.approx(row["after"] - row["before"])
        assert row["low"] > 0.05  # it has learned, and it carries over
    assert (
        json.loads((run / "evaluation" / "evaluation.json").read_text())["suites"]
        == found["suites"]
    )
    assert Image.open(run / "evaluation" / objects["grid"]).size == (3 * 4, 2 * 4)


def test_equal_seeds_give_equal_numbers_and_others_do_not(run):
    first = evaluate(run, SMALL)
    assert evaluate(run, SMALL) == first
    assert (
        evaluate(run, replace(SMALL, seed=1))["suites"][0]["rewards"]
        != first["suites"][0]["rewards"]
    )


def test_a_checkpoint_is_asked_by_its_name(run):
    newest = evaluate(run, SMALL)["suites"][0]["rewards"]["redness"]
    fifth = evaluate(run, replace(SMALL, checkpoint="5"))["suites"][0]["rewards"]["redness"]
    assert (
        evaluate(run, replace(SMALL, checkpoint="6"))["suites"][0]["rewards"]["redness"] == newest
    )
    assert fifth["before"] == newest["before"] and fifth["after"] != newest["after"]
    with pytest.raises(ConfigError, match=r"no '30'.*there are newest, best, 6, 5"):
        evaluate(run, replace(SMALL, checkpoint="30"))


def test_a_reward_that_cannot_judge_a_suite_is_said_to_be_so(run, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(REWARDS)
    own, objects = evaluate(run, replace(SMALL, rewards=(f"{path}:of_cats",)))["suites"]
    assert "error" not in own["rewards"]["of_cats"] and own["rewards"]["of_cats"]["num_images"] == 4
    assert "knows nothing but cats" in objects["rewards"]["of_cats"]["error"]


def test_prompts_that_were_trained_on_are_counted(run, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a cat\na tractor\n")
    found = evaluate(run, replace(SMALL, suites=(str(path),)))["suites"][0]
    assert (found["name"], found["trained_on"], found["num_prompts"]) == (str(path), 1, 2)


def test_the_table_reads_in_eighty_columns(run):
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table.suite_table(evaluate(run, SMALL)))
    text = shown.get()
    assert "everyday_objects" in text and "redness" in text and "…" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_interval_is_over_prompts_because_pictures_of_one_are_not_independent():
    generator = torch.Generator().manual_seed(0)
    of_prompts = torch.randn(10, 1, generator=generator)
    after = (of_prompts + 0.01 * torch.randn(10, 40, generator=generator)).flatten()
    row = gained(torch.zeros(400), after, 40, torch.Generator().manual_seed(0))
    width = row["high"] - row["low"]
    assert width == pytest.approx(2 * 1.96 * of_prompts.std().item() / 10**0.5, rel=0.25)
    alone = gained(torch.zeros(400), after, 1, torch.Generator().manual_seed(0))
    assert alone["high"] - alone["low"] < width / 3  # the control: as if all were independent


def test_what_is_unknown_before_or_after_is_left_out():
    nan = torch.nan
    row = gained(
        torch.tensor([0.0, nan, 1, 1]),
        torch.tensor([1.0, 5, 2, nan]),
        2,
        torch.Generator().manual_seed(0),
    )
    assert (row["before"], row["after"], row["num_images"]) == (0.5, 1.5, 2)


def test_a_suite_that_is_not_there_is_named_before_a_model_is_loaded(run):
    with pytest.raises(
        ConfigError, match="no 'unseen_animal' among prompts.*Did you mean 'unseen_animals'"
    ):
        evaluate(run, replace(SMALL, suites=("unseen_animal",)))
