"""What docs/rewards.md, docs/hacking.md and docs/samples.md show works as it stands there."""

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
from rediffuse.config.schema import read_recipe, resolved
from rediffuse.lookup.build import assemble, build
from rediffuse.scoring.judging import judged
from rediffuse.types import Prompt

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "rewards.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\w+\.py) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def written(tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)


IMAGES = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).view(2, 3, 1, 1).expand(2, 3, 8, 8)


def test_a_colour(written):
    reward = build("reward", {"name": "colour.py:blueness"})
    assert judged(reward, IMAGES, [Prompt("a cat")] * 2).values.tolist() == [1.0, -0.5]


def test_a_colour_of_the_prompts_file(written, tmp_path):
    (tmp_path / "my.jsonl").write_text('{"prompt": "a cat", "colour": [1, 0, 0]}\n')
    prompts = build("prompts", {"name": "text_file", "path": "my.jsonl"}).draw(2, torch.Generator())
    assert judged(build("reward", {"name": "colours.py:nearness"}), IMAGES, prompts).values.tolist() == [-2.0, 0.0]


def test_a_direction_of_clip(written, clip, tmp_path):
    reward = {"name": "mood.py:Mood", "clip": str(clip), "towards": "a cat", "away": "a dog"}
    history = train(tiny.config(reward=reward, epochs=1), tmp_path / "run")
    assert history[0]["reward_towards"] - history[0]["reward_away"] == pytest.approx(history[0]["reward_mean"], abs=1e-6)


class Taste(BaseHTTPRequestHandler):
    """Fails once; then has no answer to dogs."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls += 1
        scores = json.dumps({"scores": [None if "dog" in text else len(text) for text in body["texts"]]}).encode()
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
    plan = tiny.config(reward={"name": "service.py:taste"}, prompts=prompts, epochs=1, scoring={"max_failed": 0.5})
    history = train(plan, tmp_path / "run")
    server.shutdown()
    assert history[0]["reward_mean"] == 5 and history[0]["masked_non_finite"] == 4 and server.calls == 3


def test_several_at_once(written, tmp_path):
    terms = re.search(r'--reward\.rewards "(.*)"', PAGE)[1]
    import yaml

    history = train(tiny.config(reward={"name": "weighted_sum", "rewards": yaml.safe_load(terms)}, epochs=1), tmp_path / "run")
    assert {"reward_jpeg_incompressibility", "reward_blueness"} <= set(history[0])


def test_every_file_of_the_page_is_tested():
    assert set(FILES) == {"colour.py", "colours.py", "mood.py", "service.py"}


COMMANDS = re.findall(r"^    rediffuse train (.*)$", (DOCS / "hacking.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_run_against_hacking_can_be(command):
    """As far as it is known before a model is loaded."""
    recipe, *options = shlex.split(command)
    assemble(resolved(read_recipe(recipe), flags(options)))


def test_there_are_such_runs():
    assert len(COMMANDS) == 4 and all("second_judge" in command or "text_penalty" in command for command in COMMANDS)


def test_a_model_of_numbers_learns_as_the_page_says(tmp_path, monkeypatch):
    page = (DOCS / "samples.md").read_text()
    for kind, name in (("python", "points.py"), ("yaml", "points.yaml")):
        (tmp_path / name).write_text(re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1])
    [line] = re.findall(r"^    rediffuse (train .*)$", page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    command(shlex.split(line))
    rewards = [row["reward_mean"] for row in tiny.numbers(tmp_path / "runs" / "points")]
    assert rewards[-1] > rewards[0] + 0.5
    assert len(list((tmp_path / "runs" / "points" / "samples" / "epoch-00020").glob("*.json"))) == 6
