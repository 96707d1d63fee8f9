"""`rediffuse serve` as its own process on loopback, and the reward `remote` that asks it."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time

import httpx2
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from rediffuse import train
from rediffuse.errors import ConfigError, RewardError
from rediffuse.rewards.jpeg_compressibility import JpegCompressibility
from rediffuse.scoring.judging import judged
from rediffuse.types import Prompt

MINE = """
from rediffuse.types import Judgement

def mine(images, prompts):
    assert len(images) <= 3
    if any(prompt.text == "a bug" for prompt in prompts):
        raise KeyError("secret of the server")
    values = images[:, 0].mean((1, 2)) + 10 * images.shape[-1]
    values[[prompt.text == "a riddle" for prompt in prompts]] = float("nan")
    told = [f"{prompt.text} {prompt.metadata.get('count', '')} {prompt.inputs or ''}".rstrip() for prompt in prompts]
    return Judgement(values, {"wide": images[:, 0].mean((1, 2)) * 0 + images.shape[-1]}, {"told": told})
"""

STILL = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Still:
    judges = "video"

    def load(self, device):
        open("loaded", "w")
        return lambda samples, prompts: -samples.diff(dim=1).abs().mean((1, 2, 3, 4))
"""


class Served:
    """A process that serves, and its address."""

    def __init__(self, folder, *words, **environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "rediffuse", "serve", *words, "--port", str(self.port)]
        self.log = folder / "log"
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        for _ in range(240):
            assert self.process.poll() is None, self.log.read_text()
            try:
                assert httpx2.get(f"{self.url}/health").status_code == 200
                return
            except httpx2.TransportError:
                time.sleep(0.25)
        raise AssertionError(self.log.read_text())

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    (folder / "mine.py").write_text(MINE)
    served = Served(folder, "mine.py:mine", "--batch-size", "3")
    yield served
    served.stop()


def remote(url, **over):
    return tiny.loaded({"name": "remote", "url": url, "deadline_seconds": 2.0, **over})


IMAGES = torch.randint(0, 256, (7, 3, 12, 16), generator=torch.Generator().manual_seed(0)) / 255
PROMPTS = [Prompt(f"a cat {i}", {"count": i}) for i in range(7)]


def test_the_reward_there_is_the_reward_here(tmp_path):
    """One of the house, with an option of its own, through a token."""
    served = Served(
        tmp_path,
        "jpeg_compressibility",
        "--reward.quality",
        "50",
        "--token-variable",
        "EYE",
        EYE="canary-5",
    )
    os.environ["EYE_HERE"] = "canary-5"
    try:
        reward = remote(served.url, key_variable="EYE_HERE")
        torch.testing.assert_close(
            judged(reward, IMAGES, PROMPTS).values,
            JpegCompressibility(50)(IMAGES, PROMPTS).double(),
        )
        with pytest.raises(RewardError, match="asks for a key"):
            remote(served.url)(IMAGES, PROMPTS)
    finally:
        del os.environ["EYE_HERE"]
        served.stop()
    assert "canary" not in served.log.read_text()


def test_parts_notes_and_order_survive_the_way(mine):
    """Seven images in requests of five, scored three at a time; metadata reaches the reward."""
    judgement = judged(remote(mine.url, images_per_request=5), IMAGES, PROMPTS)
    torch.testing.assert_close(
        judgement.values, IMAGES[:, 0].mean((1, 2)).double() + 160, atol=1e-5, rtol=0
    )
    assert judgement.parts["wide"].tolist() == [16.0] * 7
    assert judgement.notes["told"] == [f"a cat {i} {i}" for i in range(7)]


def test_inputs_reach_the_reward_and_of_a_file_its_name_alone(mine):
    prompts = [Prompt("a cat", {"count": 1}, {"label": 3, "image": {"file": "/my/own/photo.png"}})]
    told = judged(remote(mine.url), IMAGES[:1], prompts).notes["told"]
    assert told == ["a cat 1 {'label': 3, 'image': {'file': 'photo.png'}}"]


def test_a_request_cannot_name_a_file_of_the_server(mine):
    asked = {"text": "a cat", "inputs": {"image": {"file": "/etc/passwd"}}}
    body = {"images": [png()], "prompts": [asked]}
    answer = httpx2.post(f"{mine.url}/score", json=body)
    assert answer.json()["notes"]["told"] == ["a cat  {'image': {'file': 'passwd'}}"]


def test_what_the_reward_cannot_say_is_no_number(mine):
    prompts = [Prompt("a riddle" if i == 2 else "a cat") for i in range(7)]
    assert judged(remote(mine.url), IMAGES, prompts).values.isfinite().tolist() == [
        i != 2 for i in range(7)
    ]


def test_a_reward_that_fails_there_for_all_stops_the_run_here_and_tells_nothing(mine):
    with pytest.raises(RewardError, match=r"http.*: the reward failed on the server"):
        remote(mine.url)(IMAGES, [Prompt("a bug")] * 7)
    assert "secret of the server" in mine.log.read_text()
    answer = httpx2.post(
        f"{mine.url}/score", json={"images": [png()], "prompts": [{"text": "a bug"}]}
    )
    assert (
        answer.status_code == 424 and "secret" not in answer.text and "Traceback" not in answer.text
    )


def test_a_reward_that_fails_there_for_one_costs_no_other_its_own(mine):
    prompts = [Prompt("a bug" if i == 2 else "a cat") for i in range(7)]
    got = judged(remote(mine.url), IMAGES, prompts)
    assert got.statuses == ["failed" if i == 2 else "ok" for i in range(7)]
    assert "the reward failed on the server" in got.notes["refused"][2]


def test_what_is_not_json_is_not_read(mine):
    body = json.dumps({"images": [png()], "prompts": [PROMPT]})
    assert (
        httpx2.post(
            f"{mine.url}/score", content=body, headers={"Content-Type": "text/plain"}
        ).status_code
        == 415
    )
    assert (
        httpx2.post(
            f"{mine.url}/score", content=body, headers={"Content-Type": "application/json"}
        ).status_code
        == 200
    )


def test_numbers_travel_whole(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def third(images, prompts):\n    return [1 / 3] * len(images)\n"
    )
    served = Served(tmp_path, "mine.py:third")
    try:
        assert judged(remote(served.url), IMAGES, PROMPTS).values.tolist() == [1 / 3] * 7
    finally:
        served.stop()


def png(width=8, height=8, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


PROMPT = {"text": "a cat"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"images": [], "prompts": []}, "at least 1"),
        ({"images": [png()], "prompts": []}, "1 images, but 0 prompts"),
        ({"images": ["no base64!"], "prompts": [PROMPT]}, "images[0] is no PNG or JPEG"),
        (
            {"images": [png(), png(kind="GIF")], "prompts": [PROMPT] * 2},
            "images[1] is no PNG or JPEG",
        ),
        ({"images": [png(6000, 6000)] * 2, "prompts": [PROMPT] * 2}, "more than"),
        ({"images": [png()] * 300, "prompts": [PROMPT] * 300}, "at most 256"),
        ({"images": [png()], "prompts": [{"text": 3}]}, "valid string"),
        ({"images": 3}, "valid array"),
        ("[" * 10_000, "Invalid JSON"),
    ],
)
def test_what_cannot_be_scored_is_refused(body, said, mine):
    content = body if isinstance(body, str) else json.dumps(body)
    answer = httpx2.post(
        f"{mine.url}/score",
        content=content,
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    assert answer.status_code == 422
    assert said in answer.text


def test_images_of_several_sizes_are_scored(mine):
    answer = httpx2.post(
        f"{mine.url}/score",
        json={"images": [png(8), png(8), png(20), png(8)], "prompts": [PROMPT] * 4},
    )
    assert answer.json()["parts"]["wide"] == [8.0, 8.0, 20.0, 8.0]


def test_a_run_learns_from_it(mine, tmp_path):
    history = train(
        tiny.config(reward={"name": "remote", "url": mine.url}, epochs=1), tmp_path / "run"
    )
    assert history[0]["masked_rewards"] == 0 and history[0]["reward_wide"] == 4.0


def test_a_server_of_something_else(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"}, text=True,
    )  # fmt: skip
    port = other.stdout.readline().split("port ")[1].split()[0]
    try:
        with pytest.raises(ConfigError, match=r"is not a `rediffuse serve` server \(status 404: "):
            remote(f"http://127.0.0.1:{port}")
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["redness", "--host", "0.0.0.0"], "so a token is needed"),
        (["redness", "--token-variable", "NOT_THERE_42"], "the environment has no NOT_THERE_42"),
        (["rednes"], "Did you mean 'redness'"),
        (["redness", "--reward.quality", "3"], "has no such option"),
        (["redness", "--qualiti", "3"], "no such option --qualiti"),
        (["nowhere.py:mine"], "cannot import"),
        (["still.py:Still"], "still.py:Still scores video samples, but only images can be sent"),
    ],
)
def test_what_cannot_be_served(words, said, tmp_path):
    (tmp_path / "still.py").write_text(STILL)
    command = [sys.executable, "-m", "rediffuse", "serve", *words]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert not (tmp_path / "loaded").exists()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "10.0.0.1:80"]
)
def test_without_a_token_a_foreign_page_in_a_browser_here_is_refused(host, mine):
    """Its name was made to point to this machine."""
    own = {"Host": f"localhost:{mine.port}"}
    assert httpx2.get(f"{mine.url}/health", headers=own).status_code == 200  # the control
    body = {"images": [png()], "prompts": [PROMPT]}
    for answer in (
        httpx2.get(f"{mine.url}/health", headers={"Host": host}),
        httpx2.post(f"{mine.url}/score", json=body, headers={"Host": host}),
    ):
        assert answer.status_code in (400, 403) and "values" not in answer.text
