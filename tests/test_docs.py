"""What CONTRIBUTING.md and the pages of docs/ show works as it stands there."""

import json
import re
import shlex
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import tiny
import torch

from rediffuse import train
from rediffuse.cli import flags
from rediffuse.cli import run as command
from rediffuse.config.recipes import read_recipe, resolved
from rediffuse.lookup.build import build
from rediffuse.lookup.parts import assemble
from rediffuse.scoring.judging import judged
from rediffuse.types import Prompt

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "rewards.md").read_text()


def files_of(page):
    """The files that a page shows, each after its name."""
    return dict(re.findall(r"<!-- file: (\w+\.py) -->\n```python\n(.*?)```", page, re.DOTALL))


FILES = files_of(PAGE)


@pytest.fixture
def written(tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)


IMAGES = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).view(2, 3, 1, 1).expand(2, 3, 8, 8)


def test_a_colour(written):
    reward = tiny.loaded({"name": "colour.py:blueness"})
    assert judged(reward, IMAGES, [Prompt("a cat")] * 2).values.tolist() == [1.0, -0.5]


def test_a_colour_of_the_prompts_file(written, tmp_path):
    (tmp_path / "my.jsonl").write_text('{"prompt": "a cat", "colour": [1, 0, 0]}\n')
    prompts = build("prompts", {"name": "text_file", "path": "my.jsonl"}).draw(2, torch.Generator())
    assert judged(
        tiny.loaded({"name": "colours.py:nearness"}), IMAGES, prompts
    ).values.tolist() == [-2.0, 0.0]


def test_a_direction_of_clip(written, clip, tmp_path):
    reward = {"name": "mood.py:Mood", "clip": str(clip), "towards": "a cat", "away": "a dog"}
    history = train(tiny.config(reward=reward, epochs=1), tmp_path / "run")
    assert history[0]["reward_towards"] - history[0]["reward_away"] == pytest.approx(
        history[0]["reward_mean"], abs=1e-6
    )


class Taste(BaseHTTPRequestHandler):
    """Fails once; then has no answer to dogs."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls += 1
        scores = json.dumps(
            {"scores": [None if "dog" in text else len(text) for text in body["texts"]]}
        ).encode()
        self.send_response(503 if self.server.calls == 1 else 200)
        self.send_header("Content-Length", str(len(scores)))
        self.end_headers()
        self.wfile.write(scores)

    def log_message(self, *args):
        pass


def test_a_service(written, tmp_path, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Taste)
    server.calls = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TASTE_URL", f"http://127.0.0.1:{server.server_port}/score")
    prompts = {"name": f"{tiny.FILE}:Few"}
    plan = tiny.config(
        reward={"name": "service.py:taste"}, prompts=prompts, epochs=1, scoring={"max_failed": 0.5}
    )
    history = train(plan, tmp_path / "run")
    server.shutdown()
    assert (
        history[0]["reward_mean"] == 5
        and history[0]["masked_non_finite"] == 4
        and server.calls == 3
    )


def test_several_at_once(written, tmp_path):
    terms = re.search(r'--rewards "(.*)"', PAGE)[1]
    import yaml

    history = train(
        tiny.config(rewards=yaml.safe_load(terms), epochs=1),
        tmp_path / "run",
    )
    assert {"reward_jpeg_incompressibility", "reward_blueness"} <= set(history[0])


def test_every_file_of_the_page_is_tested():
    assert set(FILES) == {"colour.py", "colours.py", "mood.py", "service.py"}


COMMANDS = re.findall(
    r"^    rediffuse train (.*)$", (DOCS / "hacking.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_run_against_hacking_can_be(command):
    """As far as it is known before a model is loaded."""
    recipe, *options = shlex.split(command)
    assemble(resolved(read_recipe(recipe), flags(options)))


def test_there_are_such_runs():
    assert len(COMMANDS) == 4 and all(
        "share" in command or "text_penalty" in command for command in COMMANDS
    )


@pytest.fixture
def points(tmp_path, monkeypatch):
    """An empty folder of one's own with the model and the recipe of docs/samples.md; its page."""
    page = (DOCS / "samples.md").read_text()
    for kind, name in (("python", "points.py"), ("yaml", "points.yaml")):
        (tmp_path / name).write_text(re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1])
    monkeypatch.chdir(tmp_path)
    return page


def run_of(page):
    [line] = re.findall(r"^    rediffuse (train points\.yaml .*)$", page, re.MULTILINE)
    command(shlex.split(line))


def test_a_model_of_numbers_learns_as_the_page_says(points, tmp_path):
    run_of(points)
    rewards = [row["reward_mean"] for row in tiny.numbers(tmp_path / "runs" / "points")]
    assert rewards[-1] > rewards[0] + 0.5
    assert len(list((tmp_path / "runs" / "points" / "samples" / "epoch-00020").glob("*.json"))) == 6


def test_a_prompt_set_draws_points_in_their_scene(points, tmp_path):
    from PIL import Image

    (tmp_path / "scene.py").write_text(files_of(points)["scene.py"])
    own = "--prompts scene.py:Walls --epochs 1 --run-dir runs/walls"
    command(["train", "points.yaml", "--trust-code", *own.split()])
    with Image.open(tmp_path / "runs/walls/samples/epoch-00001/000.png") as shown:
        assert shown.size == (64, 64) and shown.getpixel((16, 0)) == (128, 128, 128)


def test_the_command_for_pixels_is_a_run(points):
    [line] = re.findall(r"^    rediffuse train (one_gpu.*ddpm.*)$", points, re.MULTILINE)
    recipe, *rest = shlex.split(line)
    config = resolved(read_recipe(recipe), flags(rest, read_recipe(recipe)))
    assert assemble(config).family.source == "google/ddpm-cat-256"
    assert f"{line}\n" in (DOCS.parent / "README.md").read_text()


def test_the_page_counts_the_lines_of_that_family(points):
    models = DOCS.parent / "src" / "rediffuse" / "models"
    count = [len((models / name).read_text().splitlines()) for name in ("ddpm.py", "_pixels.py")]
    assert count == [
        int(re.search(rf"(\d+){words}", points)[1]) for words in (" lines of", " more")
    ]


def test_the_examples_of_each_room_train_together(points, tmp_path):
    page = (DOCS.parent / "CONTRIBUTING.md").read_text()
    files = files_of(page)
    assert set(files) == {"dark.py", "signed.py", "ancestral.py", "place.py", "places.py"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    run_of(page)
    run = tmp_path / "runs" / "places"
    rewards = [row["reward_mean"] for row in tiny.numbers(run)]
    assert rewards[-1] > rewards[0] + 0.5
    shown = sorted((run / "samples" / "epoch-00020").glob("*.json"))
    assert len(shown) == 6 and len(json.loads(shown[0].read_text())) == 2
    assert judged(
        tiny.loaded({"name": "dark.py:dark"}), IMAGES, [Prompt("a cat")] * 2
    ).values.tolist() == pytest.approx([-1 / 3] * 2)


def test_an_ancestral_sampler_is_short_and_draws_the_variance_of_the_paper(tmp_path):
    """On betas of DDPM, beta itself, and the mean of Ho et al. 2020, eq. 7."""
    page = (DOCS.parent / "CONTRIBUTING.md").read_text()
    code = files_of(page)["ancestral.py"]
    assert len([line for line in code.splitlines() if line.strip()]) < 25
    (tmp_path / "ancestral.py").write_text(code)
    bound = build(
        "sampler", {"name": f"{tmp_path / 'ancestral.py'}:Ancestral", "num_steps": 1000}
    ).bind(tiny.ToyDenoiser.schedule)
    alpha_bar = tiny.ToyDenoiser.schedule.alpha_bar.double()
    before = torch.cat([torch.ones(1), alpha_bar[:-1]]).double()
    beta = 1 - alpha_bar / before
    assert (
        bound.std[:-1].square() == pytest.approx(beta.flip(0)[:-1], rel=1e-6) and bound.std[-1] == 0
    )
    step, t = torch.tensor([600]), 399
    state, noise = torch.randn(
        2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    clean = (state - (1 - alpha_bar[t]).sqrt() * noise) / alpha_bar[t].sqrt()
    mean = before[t].sqrt() * beta[t] * clean + (1 - beta[t]).sqrt() * (1 - before[t]) * state
    assert torch.allclose(bound.step(noise, state, step).mean, mean / (1 - alpha_bar[t]), atol=1e-6)
