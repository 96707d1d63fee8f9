"""Runs whose samples are no still pictures, through every command that people use."""

import pytest
import tiny
from tiny import numbers, weights

from rediffuse.cli import run as command
from rediffuse.errors import ConfigError
from rediffuse.evaluation.suites import Question, evaluate
from rediffuse.report import index, page
from rediffuse.runs.folder import RunFolder
from rediffuse.start import resume, train

KINDS = {
    "video": ("OfVideo", "Few", ".webp"),
    "audio": ("OfAudio", "Few", ".wav"),
    "vector": ("OfVectors", "Labels", ".json"),
    "unconditional": ("OfVectors", "Nothing", ".json"),
}


def config(kind, **over):
    family, prompts, _ = KINDS[kind]
    usual = {
        "epochs": 4,
        "prompts_per_epoch": 32,
        "updates_per_epoch": 2,
        "learning_rate": 5e-3,
        "model": {"name": f"{tiny.FILE}:{family}"},
        "prompts": {"name": f"{tiny.FILE}:{prompts}"},
        "reward": {"name": f"{tiny.FILE}:first"},
        "algorithm": {"name": "ddpo_is", "clip_range": 0.1, "advantage": "batch"},
        "evaluation": {"every": 2, "images_per_prompt": 2, "num_prompts": 2},
    }
    return tiny.config(**{**usual, **over})


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_resumes_and_is_looked_at_like_any_other(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    history = train(config(kind), "whole")
    assert history[-1]["reward_mean"] > history[0]["reward_mean"]
    train(config(kind, epochs=2), "run")
    resume("run", epochs=4)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "run")
    suffix = KINDS[kind][2]
    seen = tmp_path / "run" / "samples" / "epoch-00004"
    columns = 1 if kind == "unconditional" else 2
    assert len(list(seen.glob(f"*{suffix}"))) == len(list(seen.glob("[0-9]*.png"))) == 2 * columns
    assert page.slider_frames(page.read(RunFolder(tmp_path / "run")))[-1].sheet.columns == columns
    found = evaluate(
        tmp_path / "run", Question(suites=("own",), num_prompts=2, images_per_prompt=2)
    )
    assert found["suites"][0]["num_prompts"] == columns
    if columns == 2:
        assert len({row["prompt"] for row in numbers(tmp_path / "run", "rewards.jsonl")}) == 2
    command(["compare", "whole", "run", "--out", "together"])
    asked = {"vector": ["--inputs", "{label: 1}"], "unconditional": []}
    words = asked.get(kind, ["--prompt", "a cat"])
    command(["sample", "run", *words, "--seed", "1", "--trust-code"])
    assert (tmp_path / "together" / "compare.html").exists()
    assert index.write(tmp_path).exists()
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert f"`{tiny.ADAPTER}`" in card and "diffusers" not in card.lower()
    with pytest.raises(
        ConfigError, match=r"--to kohya: this kind of model cannot be converted to that format"
    ):
        command(["export", "run", "--to", "kohya", "--trust-code"])


@pytest.mark.parametrize("algorithm", ["rwr", "rwr_sparse", "ddpo_sf"])
def test_every_algorithm_learns_from_a_flow_of_numbers(algorithm, tmp_path):
    own = {
        "rwr": {"inverse_temperature": 3.0, "learns_from": "samples"},
        "rwr_sparse": {"among": "epoch", "percentile": 75, "inner_epochs": 10},
        "ddpo_sf": {"advantage": "batch"},
    }
    over = {
        "algorithm": {"name": algorithm, **own[algorithm]},
        "prompts_per_epoch": 128,
        "epochs": 5,
        "updates_per_epoch": 1,
    }
    rate = 5e-2 if algorithm == "ddpo_sf" else 1e-2
    history = train(config("vector", **over, learning_rate=rate), tmp_path / "run")
    assert history[-1]["reward_mean"] > history[0]["reward_mean"] + 0.1


def test_a_reward_of_another_kind_of_sample_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(
        ConfigError, match=r"reward.name: 'redness' scores image samples.*makes video"
    ):
        train(config("video", reward={"name": "redness"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_family_that_does_not_say_its_kind_of_sample_is_told_to(tmp_path, monkeypatch):
    monkeypatch.delattr(tiny.OfVectors, "modality")
    (tmp_path / "mine.py").write_text(
        "import tiny\nfrom dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine(tiny.OfVectors): pass\n"
    )
    with pytest.raises(
        ConfigError,
        match=r"makes vector samples. Its class must declare that .*modality = 'vector'",
    ):
        train(config("vector", model={"name": f"{tmp_path}/mine.py:Mine"}), tmp_path / "run")
