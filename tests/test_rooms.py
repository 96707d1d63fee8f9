"""Each file of a room is found by its name, says what it is for, and is complete by itself."""

import dataclasses
import subprocess
import sys

import pytest
import tiny
import torch

from rediffuse.config.declared import KEYS, declared_options, names, purpose
from rediffuse.config.recipes import read_recipe, recipe_names, resolved
from rediffuse.config.schema import from_yaml
from rediffuse.lookup.build import build
from rediffuse.lookup.find import find
from rediffuse.lookup.parts import assemble
from rediffuse.scoring.judging import judged
from rediffuse.types import Algorithm, Judgement, Prompt

EVERYTHING = [(key, name) for key, room in KEYS.items() for name in names(room)]
PROMPT = Prompt("a cat", {"questions": ["what is in this image ?"], "answers": ["cat"]})
NEEDED = {"text_file": {"path": "prompts.txt"}}


def needed(reward, clip, judge):
    """Models that are on this machine."""
    terms = [{"name": "redness"}, {"name": "jpeg_compressibility"}]
    options = {
        "rewards": terms,
        "clip": str(clip),
        "predictor": str(clip / tiny.PREDICTOR),
        "sha256": None,
        **judge,
    }
    return {
        option: options[option]
        for option in declared_options("rewards", reward)
        if option in options
    }


@pytest.mark.parametrize(("key", "name"), EVERYTHING)
def test_every_file_holds_a_frozen_dataclass_and_a_first_line(key, name):
    kind = find(key, name)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert 20 < len(purpose(KEYS[key], name)) < 130


@pytest.mark.parametrize("name", names("algorithms"))
def test_every_algorithm_keeps_the_protocol(name):
    assert isinstance(build("algorithm", {"name": name}), Algorithm)


# which has a server of its own in test_serve
@pytest.mark.parametrize("name", sorted({*names("rewards")} - {"remote"}))
def test_every_reward_gives_one_finite_number_per_image(name, clip, judge):
    reward = tiny.loaded({"name": name, **needed(name, clip, judge)})
    assert judged(reward, torch.rand(3, 3, 16, 16), [PROMPT] * 3).values.isfinite().all()


@pytest.mark.parametrize("name", sorted({*names("rewards")} - {"remote"}))
def test_rewards_that_say_so_can_be_differentiated(name, clip, judge):
    """The slope along the gradient is that of a small step; the control are those that say nothing."""
    given = {"name": name, **needed(name, clip, judge)}
    reward, options = tiny.loaded(given), build("reward", given)
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    images.mul_(0.8).add_(0.1).requires_grad_()
    if not getattr(options, "differentiable", False):
        with pytest.raises(RuntimeError):
            torch.autograd.grad(value_of(reward, images).sum(), images)
        return
    (slope,) = torch.autograd.grad(value_of(reward, images).sum(), images)
    assert slope.isfinite().all() and slope.norm() > 0
    step = 1e-2 * slope / slope.norm()
    ahead, behind = (value_of(reward, images.detach() + way * step) for way in (1, -1))
    torch.testing.assert_close(
        (ahead - behind).sum() / 2e-2, slope.norm(), rtol=0.1, atol=1e-3, check_dtype=False
    )


def value_of(reward, images):
    given = reward(images.requires_grad_(), [PROMPT] * len(images))
    return given.values if isinstance(given, Judgement) else given


@pytest.mark.parametrize("name", names("prompts"))
def test_every_prompt_set_draws_as_many_as_asked_from_the_key_alone(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    prompts = build("prompts", {"name": name, **NEEDED.get(name, {})})
    drawn = [prompts.draw(100, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert len(drawn[0]) == 100
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("algorithm", [None, *names("algorithms")])
def test_every_recipe_is_a_run_under_every_algorithm(name, algorithm, tmp_path):
    recipe = read_recipe(name)
    assert recipe["claim"]
    config = resolved(recipe, {"algorithm": {"name": algorithm}} if algorithm else {})
    assert config.algorithm["name"] == algorithm or algorithm is None
    assemble(config)


def test_a_recipe_may_leave_out_what_has_a_default(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 3\nreward: {name: redness}\n")
    assert from_yaml(path).epochs == 3


def test_listing_imports_no_torch():
    code = "import sys; from rediffuse.cli import run; run(['list', 'rewards']); sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode
        == 0
    )
