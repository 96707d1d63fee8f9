import pytest
import torch

from rediffuse.config.recipes import read_recipe, recipe_names, resolved
from rediffuse.errors import ConfigError


def test_flags_win_over_the_recipe():
    config = resolved(
        {"epochs": 3, "algorithm": {"name": "ddpo_is", "clip_range": 0.5}},
        {"algorithm": {"clip_range": 0.1}},
    )
    assert config.algorithm == {"name": "ddpo_is", "clip_range": 0.1}
    assert config.epochs == 3


def test_another_algorithm_takes_its_own_settings_of_the_recipe():
    recipe = {
        "updates_per_epoch": 1,
        "algorithm": {"name": "ddpo_sf", "advantage": "batch"},
        "with_algorithm": {
            "ddpo_is": {"updates_per_epoch": 4, "algorithm": {"name": "ddpo_is", "clip_range": 0.2}}
        },
    }
    config = resolved(recipe, {"algorithm": {"name": "ddpo_is", "inner_epochs": 2}, "epochs": 5})
    assert config.updates_per_epoch == 4
    assert config.algorithm == {"name": "ddpo_is", "clip_range": 0.2, "inner_epochs": 2}
    assert resolved(recipe, {}).updates_per_epoch == 1


@pytest.mark.parametrize("recipe", [{"with_algorithm": [1]}, {"algorithm": "ddpo_sf"}])
def test_a_recipe_of_the_wrong_form(recipe):
    with pytest.raises(ConfigError, match="must hold keys and values"):
        resolved(recipe, {"algorithm": {"clip_range": 1}})


def test_recipes_are_found_by_name():
    assert "demo/incompressibility" in recipe_names()
    with pytest.raises(ConfigError, match="Did you mean 'demo/compressibility'"):
        read_recipe("demo/compresibility")
    with pytest.raises(ConfigError, match="Cannot read"):
        read_recipe("nowhere.yaml")


def test_a_recipe_may_extend_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: demo/compressibility\nepochs: 3\nalgorithm: {steps_per_sample: 2}\n")
    mine, base = (
        resolved(read_recipe(str(path)), {}),
        resolved(read_recipe("demo/compressibility"), {}),
    )
    assert mine.epochs == 3
    assert mine.algorithm == base.algorithm | {"steps_per_sample": 2}
    assert mine.prompts == base.prompts


def test_a_recipe_that_extends_another_and_changes_the_algorithm_keeps_its_own_settings(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: paper/compressibility\nepochs: 3\nalgorithm: {name: rwr, inverse_temperature: 1.0}\n"
    )
    config = resolved(read_recipe(str(path)), {})
    assert (config.epochs, config.num_samples) == (3, 10_240)
    published = {"inner_epochs": 5, "learns_from": "samples", "reshuffle": False}
    assert config.algorithm == {"name": "rwr", "inverse_temperature": 1.0, **published}


def test_settings_of_an_algorithm_that_is_not_there(tmp_path):
    recipe = {"algorithm": {"name": "ddpo_sf"}, "with_algorithm": {"rrw": {"epochs": 3}}}
    with pytest.raises(
        ConfigError, match=r"with_algorithm.rrw: no such algorithm.*Did you mean 'rwr'"
    ):
        resolved(recipe, {"algorithm": {"name": "rwr"}})


@pytest.mark.parametrize(
    ("flag", "revision"), [({}, "133a"), ({"source": "a/b"}, "133a"), ({"source": "c/d"}, None)]
)
def test_a_revision_is_of_its_own_source(flag, revision):
    recipe = {"model": {"name": "stable_diffusion", "source": "a/b", "revision": "133a"}}
    assert resolved(recipe, {"model": flag}).model.get("revision") == revision
    assert resolved(recipe, {"model": flag | {"revision": "9"}}).model["revision"] == "9"


def test_recipes_that_extend_one_another(tmp_path):
    """Each is looked for beside the other, wherever the command is given."""
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("extends: other.yaml\n")
    other.write_text("extends: one.yaml\n")
    with pytest.raises(ConfigError, match="which is a cycle"):
        read_recipe(str(one))


COMMON = {
    "images_per_prompt": 1,
    "model.source": "CompVis/stable-diffusion-v1-4",
    "model.guidance_scale": 5.0,
    "sampler": {"name": "ddim", "num_steps": 50, "eta": 1.0},
    "optimizer.betas": (0.9, 0.999),
    "optimizer.weight_decay": 1e-4,
    "optimizer.epsilon": 1e-8,
    "optimizer.max_grad_norm": 1.0,
    "algorithm.name": "ddpo_is",
    "algorithm.clip_range": 1e-4,
    "algorithm.min_count": 16,
}
PYTORCH = COMMON | {
    "epochs": 200,
    "prompts_per_epoch": 256,
    "updates_per_epoch": 2,
    "learning_rate": 3e-4,
    "model.train": "lora",
    "model.lora_rank": 4,
    "model.precision": "fp16",
    "algorithm.buffer_size": 32,
    "algorithm.advantage_clip": 5.0,
    "optimizer.first_moment": "fp32",
    "logging.checkpoint_every": 1,
    "logging.keep_checkpoints": 0,
    "seed": 42,
}
TPU = COMMON | {
    "epochs": 200,
    "prompts_per_epoch": 256,
    "updates_per_epoch": 4,
    "learning_rate": 1e-5,
    "model.train": "full",
    "model.precision": "fp32",
    "algorithm.buffer_size": 32,
    "algorithm.advantage_clip": 10.0,
    "optimizer.first_moment": "bf16",
    "logging.checkpoint_every": 10,
    "seed": 0,
}
JPEG = {"epochs": 100, "updates_per_epoch": 4, "algorithm.buffer_size": 16}
ANIMALS, BARE = (
    {"prompts": {"name": "imagenet_animals"}},
    {"prompts": {"name": "animals", "article": False}},
)
ACTIVITIES = {"prompts": {"name": "animals_activities"}}
AESTHETIC = {"name": "aesthetic", "truncate": True}
QUESTIONS = {"name": "vqa", "matching": "substring", "truncate": True, "empty_scores_zero": True}
PUBLISHED = {
    "paper/compressibility": PYTORCH
    | JPEG
    | ANIMALS
    | {"reward": {"name": "jpeg_compressibility"}},
    "paper/incompressibility": PYTORCH
    | JPEG
    | ANIMALS
    | {"reward": {"name": "jpeg_incompressibility"}},
    "paper/aesthetic": PYTORCH | BARE | {"reward": {"name": "aesthetic"}},
    "paper/alignment": PYTORCH
    | ACTIVITIES
    | {"reward": {"name": "alignment"}, "prompts_per_epoch": 288},
    "paper/counting": PYTORCH
    | {
        "prompts": {"name": "counting"},
        "reward": {key: value for key, value in QUESTIONS.items() if key != "truncate"},
    }
    | {"prompts_per_epoch": 288},
    "paper_tpu/compressibility": TPU
    | ANIMALS
    | {"reward": {"name": "jpeg_compressibility", "truncate": True}},
    "paper_tpu/incompressibility": TPU
    | ANIMALS
    | {"reward": {"name": "jpeg_incompressibility", "truncate": True}},
    "paper_tpu/aesthetic": TPU | BARE | {"reward": AESTHETIC},
    "paper_tpu/alignment": TPU
    | ACTIVITIES
    | {"reward": {"name": "alignment", "truncate": True, "empty_scores_zero": True}},
    "paper_tpu/counting": TPU | {"prompts": {"name": "counting"}, "reward": QUESTIONS},
    "paper_tpu/vqa": TPU
    | {"prompts": {"name": "vqa", "version": "v2"}, "reward": QUESTIONS, "epochs": 120}
    | {"algorithm.buffer_size": 128, "algorithm.min_count": 32},
    "paper_tpu/one_dog": TPU
    | {
        "prompts": {"name": "one_prompt", "text": "a dog"},
        "reward": AESTHETIC,
        "algorithm.advantage": "batch",
    },
    "paper_tpu/dogs": TPU
    | {"prompts": {"name": "imagenet_animals", "only": "dogs"}, "reward": AESTHETIC},
}
REGRESSION = {
    "epochs": 10,
    "learning_rate": 1e-5,
    "model.train": "full",
    "model.precision": "fp32",
    "optimizer.first_moment": "bf16",
    "optimizer.weight_decay": 1e-4,
    "logging.checkpoint_every": 1,
    "algorithm.learns_from": "samples",
    "algorithm.reshuffle": False,
}
RWR = REGRESSION | {
    "prompts_per_epoch": 10_240,
    "images_per_prompt": 1,
    "updates_per_epoch": 80,
    "algorithm.inner_epochs": 5,
    "algorithm.inverse_temperature": 0.2,
}
SPARSE = REGRESSION | {
    "prompts_per_epoch": 256,
    "images_per_prompt": 32,
    "updates_per_epoch": 8,
    "algorithm.inner_epochs": 50,
    "algorithm.percentile": 90.0,
    "algorithm.among": "prompt",
}


def differing(config, published):
    def at(key):
        if key == "reward":
            (entry,) = config.rewards
            return entry
        place = config
        for part in key.split("."):
            place = place.get(part) if isinstance(place, dict) else getattr(place, part)
        return place

    return {key: at(key) for key, value in published.items() if at(key) != value}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_papers_recipes_are_its_published_settings(name):
    recipe, published = read_recipe(name), PUBLISHED[name]
    assert not differing(resolved(recipe, {}), published)
    score_function, regression, sparse = (
        resolved(recipe, {"algorithm": {"name": other}})
        for other in ("ddpo_sf", "rwr", "rwr_sparse")
    )
    num_devices = 32 if name.endswith("/aesthetic") else 128
    scaled = {
        "optimizer.max_grad_norm": num_devices,
        "optimizer.epsilon": pytest.approx(num_devices * 1e-8),
    }
    once = {
        key: value
        for key, value in published.items()
        if key not in ("algorithm.clip_range", "algorithm.name")
    }
    assert not differing(score_function, once | {"updates_per_epoch": 1})
    assert not differing(
        regression,
        RWR | scaled | {"algorithm.per_prompt": True if name.endswith("aesthetic") else None},
    )
    assert not differing(
        sparse, SPARSE | {"optimizer.max_grad_norm": 1.0, "optimizer.epsilon": 1e-8}
    )


@pytest.mark.parametrize(
    ("name", "published"),
    [
        (
            "compressibility_unguided",
            {
                "algorithm.guided": False,
                "reward": {"name": "jpeg_compressibility", "truncate": True},
            },
        ),
        (
            "incompressibility_unguided",
            {
                "algorithm.guided": False,
                "reward": {"name": "jpeg_incompressibility", "truncate": True},
            },
        ),
        (
            "vqa_threshold",
            {
                "algorithm.threshold": 0.65,
                "prompts": {"name": "vqa", "version": "v0"},
                "reward": QUESTIONS,
            }
            | {"prompts_per_epoch": 4096, "images_per_prompt": 1, "updates_per_epoch": 16},
        ),
    ],
)
def test_the_recipes_of_published_regression(name, published):
    assert not differing(
        resolved(read_recipe(f"paper_tpu/{name}"), {}),
        SPARSE | {"algorithm.name": "rwr_sparse"} | published,
    )


def test_a_gradient_divided_by_the_devices_is_ours_with_norm_and_epsilon_multiplied_by_them():
    """Of updates that are clipped, that are not, and that epsilon decides."""
    settings = resolved(
        read_recipe("paper_tpu/compressibility"), {"algorithm": {"name": "rwr"}}
    ).optimizer

    def learned(division, max_norm, epsilon):
        weight = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = torch.optim.AdamW(
            [weight], lr=0.1, betas=settings.betas, eps=epsilon, weight_decay=settings.weight_decay
        )
        for size in (1e-5, 1e-6, 1.0, 100.0, 1000.0):
            weight.grad = size * torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64) / division
            torch.nn.utils.clip_grad_norm_([weight], max_norm)
            optimizer.step()
        return weight.detach()

    theirs = learned(128, 1.0, 1e-8)
    torch.testing.assert_close(
        learned(1, settings.max_grad_norm, settings.epsilon), theirs, rtol=1e-6, atol=0
    )
    assert (learned(1, 1.0, 1e-8) - theirs).abs().max() > 1e-3
