"""Every algorithm raises a reward whose optimum is known; with its rewards' signs flipped it lowers it."""

from pathlib import Path

import pytest
import tiny
import yaml

from rediffuse.config.declared import names
from rediffuse.config.merge import merge
from rediffuse.config.recipes import read_recipe, resolved
from rediffuse.lookup.find import find
from rediffuse.start import train

pytestmark = pytest.mark.usefixtures("without_charts")

EPOCHS = 40


def own(name, where):
    """The settings of an algorithm that differ from the usual; its file may be missing."""
    path = Path(__file__).parent / "algorithms" / f"{name}.yaml"
    return yaml.safe_load(path.read_text())[where] if path.exists() else {}


def test_settings_are_those_of_algorithms():
    files = (Path(__file__).parent / "algorithms").glob("*.yaml")
    assert {path.stem for path in files} <= set(names("algorithms"))


def settings(name):
    usual = {
        "epochs": EPOCHS,
        "prompts_per_epoch": 8,
        "images_per_prompt": 8,
        "micro_batch_size": 512,
        "updates_per_epoch": 1,
        "algorithm": {"name": name},
    }
    return merge(usual, own(name, "on_the_toy"))


def redness_gained(run_dir, **over):
    """Redness is at most 1: full red, no green, no blue."""
    quiet = {"evaluation": {"every": 0}, "logging": {"checkpoint_every": EPOCHS}}
    history = train(tiny.config(**quiet, **over), run_dir)
    return history[-1]["reward_mean"] - history[0]["reward_mean"]


@pytest.mark.parametrize("name", names("algorithms"))
def test_the_reward_rises(name, tmp_path):
    assert redness_gained(tmp_path / "run", **settings(name)) > 0.1


@pytest.mark.parametrize("name", names("algorithms"))
def test_with_flipped_rewards_it_falls(name, tmp_path, monkeypatch):
    kind = find("algorithm", name)
    upright = kind.advantages
    monkeypatch.setattr(
        kind, "advantages", lambda self, rewards, groups: upright(self, -rewards, groups)
    )
    assert redness_gained(tmp_path / "run", **settings(name)) < -0.1


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("ddpo_sf", {"advantage": "per_prompt"}),
        ("ddpo_sf", {"advantage": "group"}),
        ("ddpo_sf", {"advantage": "group_mean"}),
        ("ddpo_sf", {"steps_per_sample": 2}),
        ("ddpo_sf", {"equal_steps": True}),
        ("ddpo_sf", {"kl_weight": 1e-3}),
        ("rwr", {"per_prompt": True}),
        ("rwr", {"learns_from": "samples"}),
        ("rwr", {"restart_optimizer": False}),
        ("rwr_sparse", {"among": "epoch"}),
        ("rwr_sparse", {"among": "all_so_far"}),
    ],
)
def test_the_reward_rises_under_every_option(name, over, tmp_path):
    plan = settings(name)
    plan["algorithm"] |= over
    assert redness_gained(tmp_path / "run", **plan) > 0.05


@pytest.mark.parametrize(("train_what", "learning_rate"), [("lora", 1e-1), ("full", 5e-3)])
def test_a_diffusers_pipeline_learns(train_what, learning_rate, pipeline, tmp_path):
    targets = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out"]
    history = train(
        tiny.config(
            model={
                "name": f"{tiny.FILE}:Tiny",
                "path": str(pipeline),
                "train": train_what,
                "lora_targets": targets,
            },
            sampler={"num_steps": 4, "spacing": "trailing"},
            algorithm={"name": "ddpo_sf", "advantage": "batch"},
            updates_per_epoch=1,
            prompts_per_epoch=64,
            images_per_prompt=1,
            epochs=10,
            learning_rate=learning_rate,
            micro_batch_size=64,
            evaluation={"every": 0},
        ),
        tmp_path / "run",
    )
    assert history[-1]["reward_mean"] - history[0]["reward_mean"] > history[0]["reward_std"]
    assert max(row["ratio_drift"] for row in history) < 1e-4


@pytest.mark.parametrize("name", names("algorithms"))
def test_the_embedded_models_reward_rises(name, tmp_path):
    """By more than the spread of its first samples, after two updates, or two rounds of regression, of 30 images."""
    usual = {
        "epochs": 3,
        "prompts_per_epoch": 30,
        "images_per_prompt": 1,
        "algorithm": {"name": name},
        "reward": {"name": "redness"},
        "sampler": {"num_steps": 4},
        "evaluation": {"every": 0, "num_prompts": 1, "images_per_prompt": 1},
    }
    config = resolved(
        read_recipe("demo/incompressibility"), merge(usual, own(name, "on_the_embedded_model"))
    )
    history = train(config, tmp_path / "run")
    assert history[-1]["reward_mean"] - history[0]["reward_mean"] > history[0]["reward_std"]
