"""The alignment reward, on a small LLaVA and a small BERT."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from rediffuse import train
from rediffuse.errors import ConfigError
from rediffuse.images import pictures
from rediffuse.rewards._bertscore import BertScore
from rediffuse.rewards._vlm import VisionLanguageModel
from rediffuse.runs.folder import existing
from rediffuse.types import Prompt

pytestmark = pytest.mark.usefixtures("without_charts")

PROMPTS = [Prompt("a cat"), Prompt("a dog riding a bike"), Prompt("a bike")]


@pytest.fixture
def images():
    """A flat one, noise, and a ramp."""
    ramp = torch.linspace(0, 1, 48).expand(3, 40, 48)
    return torch.stack(
        [
            torch.full((3, 40, 48), 0.9),
            torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0)),
            ramp,
        ]
    )


@pytest.fixture
def vlm(judge):
    return VisionLanguageModel.load("reward.vlm", judge["vlm"], None, "cpu", 8, 80)


def test_answers_do_not_depend_on_who_else_is_asked(vlm, images):
    """Shorter questions are padded on the left."""
    questions = ["what is going on in this image ?", "cat ?", "what is in this image ?"]
    shown = pictures(images)
    together = vlm.ask(shown, questions)
    assert together == [
        vlm.ask([image], [question])[0] for image, question in zip(shown, questions, strict=True)
    ]
    assert len(set(together)) == 3 and all(together)


def test_it_is_shown_a_jpeg_of_that_quality(judge, vlm, images, monkeypatch):
    pixels = (images[1] * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    seen = []
    real = vlm.processor.apply_chat_template
    monkeypatch.setattr(
        vlm.processor,
        "apply_chat_template",
        lambda talks, **more: seen.append(talks) or real(talks, **more),
        raising=True,
    )
    vlm.ask(pictures(images), ["what ?"] * 3)
    shown = np.asarray(seen[0][1][0]["content"][0]["image"])
    assert np.array_equal(shown, np.asarray(Image.open(buffer)))
    assert not np.array_equal(shown, pixels)


@pytest.mark.parametrize("score", ["recall", "precision", "f1"])
def test_the_reward_is_the_score_of_the_answer_against_the_prompt(score, judge, vlm, images):
    reward = tiny.loaded({"name": "alignment", "score": score, **judge})
    answers = vlm.ask(pictures(images), ["Answer concisely: what is going on in this image?"] * 3)
    references = [
        "The image contains a cat",
        "The image contains a dog riding a bike",
        "The image contains a bike",
    ]
    want = BertScore.load("reward.encoder", judge["encoder"], None, 2, "cpu")(answers, references)
    judgement = reward(images, PROMPTS)
    got = judgement.values
    torch.testing.assert_close(got, getattr(want, score))
    assert got.std() > 1e-3
    assert judgement.notes == {"answer": answers}
    assert all(
        torch.equal(judgement.parts[name], getattr(want, name))
        for name in ("precision", "recall", "f1")
    )


def test_no_answer_is_no_reward(judge, images, monkeypatch):
    monkeypatch.setattr(
        VisionLanguageModel,
        "ask",
        lambda self, images, questions: ["", "a cat", "."][: len(questions)],
    )
    assert tiny.loaded({"name": "alignment", **judge})(
        images, PROMPTS
    ).values.isfinite().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"reference": "a picture"},
            r"reward.reference: 'a picture' has no place for the {prompt}",
        ),
        ({"vlm": "./nowhere"}, r"reward.vlm: no folder and no model"),
        ({"encoder": "./nowhere"}, r"reward.encoder: no folder and no model"),
        ({"layer": 7}, r"reward.encoder: .* has 2 layers, but layer 7 was requested"),
        ({"score": "bleu"}, r"reward.score: "),
    ],
)
def test_what_cannot_be_had_is_told_before_the_model_is_loaded(options, said, judge, tmp_path):
    reward = {"name": "alignment", **judge, **options}
    with pytest.raises(ConfigError, match=said):
        train(
            tiny.config(reward=reward, model={"name": f"{tiny.FILE}:NeverLoaded"}), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_a_run_learns_from_it(judge, tmp_path):
    history = train(tiny.config(reward={"name": "alignment", **judge}, epochs=1), tmp_path / "run")
    assert history[0]["masked_rewards"] == 0 and history[0]["reward_std"] > 0
    assert (
        history[0]["reward_recall"] == history[0]["reward_mean"] != history[0]["reward_precision"]
    )
    row = json.loads((tmp_path / "run" / "rewards.jsonl").read_text().splitlines()[0])
    assert row["parts"]["recall"] == row["reward"] and row["notes"]["answer"]


def test_the_run_keeps_the_commits_of_the_models_that_judge(judge, tmp_path):
    """From a cache of the Hub, which nobody can reach."""
    for name, commit in (("vlm", "a1" * 20), ("encoder", "b2" * 20)):
        tiny.cache_of_the_hub(judge[name], name, commit, tmp_path)
    options = {
        "reward.vlm": "someone/vlm",
        "reward.encoder": "someone/encoder",
        "reward.layer": 2,
        "reward.max-tokens": 4,
    }
    small = {
        "epochs": 1,
        "prompts-per-epoch": 1,
        "evaluation.num-prompts": 1,
        "sampler.num-steps": 2,
        "model": f"{tiny.FILE}:Toy",
    }
    words = [f"--{key}={value}" for key, value in {**options, **small}.items()]
    command = [
        sys.executable,
        "-m",
        "rediffuse",
        "train",
        "--reward",
        "alignment",
        *words,
        "--run-dir",
        "run",
    ]
    offline = tiny.hub_environment("http://127.0.0.1:9", tmp_path)
    done = subprocess.run(
        command, cwd=tmp_path, env=offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    reward = existing(tmp_path / "run").config().rewards[0]
    assert (reward["revision"], reward["encoder_revision"]) == ("a1" * 20, "b2" * 20)


def test_an_empty_answer_scores_zero_where_that_is_asked(judge, images, monkeypatch):
    monkeypatch.setattr(
        VisionLanguageModel,
        "ask",
        lambda self, images, questions: ["", "a cat", "."][: len(questions)],
    )
    judgement = tiny.loaded({"name": "alignment", "empty_scores_zero": True, **judge})(
        images, PROMPTS
    )
    assert judgement.values[0] == 0 and judgement.values.isfinite().all()
    assert judgement.statuses == ["ok"] * 3
