"""A vision-language model behind a server: a real one on loopback, and one that fails in every way."""

import base64
import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from rediffuse import resume, train
from rediffuse.errors import ConfigError, RewardError
from rediffuse.rewards._answers import Answer
from rediffuse.rewards._http import Http, _asked_wait
from rediffuse.rewards._served import ServedModel
from rediffuse.types import Prompt

pytestmark = pytest.mark.usefixtures("without_charts")


def server(url, **over):
    plan = {
        "key_variable": None,
        "concurrency": 8,
        "timeout_seconds": 0.7,
        "deadline_seconds": 20.0,
    }
    return ServedModel(Http(url, **plan | over), "eye", max_tokens=8, jpeg_quality=None)


@pytest.fixture(scope="module")
def real(judge, tmp_path_factory):
    """`transformers serve` with the tiny model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent)}
    command = [
        "-m",
        "transformers.cli.transformers",
        "serve",
        judge["vlm"],
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, *command, "--device", "cpu"],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            if httpx2.get(f"{url}/health").status_code == 200:
                break
        except httpx2.TransportError:
            time.sleep(0.5)
    yield f"{url}/v1"
    process.kill()
    process.wait()


def test_a_real_server_gives_the_reward_that_the_model_gives_here(real, judge):
    images = torch.rand(4, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    images[0] = 0.9
    prompts = [Prompt("a cat"), Prompt("a dog"), Prompt("a bike"), Prompt("an image")]
    here = tiny.loaded({"name": "alignment", **judge})
    there = tiny.loaded({"name": "alignment", **judge, "server": real})
    torch.testing.assert_close(there(images, prompts).values, here(images, prompts).values)
    assert here(images, prompts).values.std() > 1e-3


def test_a_real_server_that_has_no_such_model(real, judge):
    options = {"name": "alignment", **judge, "vlm": "nobody/nothing", "server": real}
    with pytest.raises(ConfigError, match=r"does not serve 'nobody/nothing' \(status 400: "):
        tiny.loaded(options)


class Eye(BaseHTTPRequestHandler):
    """Says what it was shown and asked, unless `fault` of its server says what goes wrong with this request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.say(json.dumps({"data": [{"id": "eye"}]}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        image, question = (part for part in body["messages"][0]["content"])
        data = image["image_url"]["url"].partition(",")[2]
        answer = f"{hashlib.sha256(base64.b64decode(data)).hexdigest()} {question['text']}"
        with self.server.lock:
            self.server.asked.append((answer, self.headers.get("Authorization")))
            fault = self.server.fault(answer)
        whole = json.dumps({"choices": [{"message": {"content": answer}}]})
        if fault == "stall":
            time.sleep(self.server.stall)
        elif fault == "reset":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        elif fault == "drip":
            self.drip()
            return
        elif isinstance(fault, int):
            headers = (
                {"Retry-After": "0.05"}
                if fault == 429
                else {"Location": "http://127.0.0.1:9/"}
                if fault == 302
                else {}
            )
            self.say("<html>no</html>", fault, headers)
            return
        self.say(
            {
                "truncated": whole[:-20],
                "html": "<html>",
                "huge": "x" * 3_000_000,
                "null": "null",
            }.get(fault, whole)
        )

    def drip(self):
        """A letter at a time, each in time, for ever."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b" ")
                time.sleep(0.1)

    def say(self, text, status=200, headers=None):
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            pass  # the client has given up

    def log_message(self, *args):
        pass


class EyeServer(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), Eye)
        self.asked, self.lock, self.fault, self.stall = (
            [],
            threading.Lock(),
            lambda answer: None,
            1.5,
        )
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        pass

    def stop(self):
        self.shutdown()
        self.server_close()


@pytest.fixture
def eye():
    eye = EyeServer()
    yield eye
    eye.stop()


def shown(n):
    return [
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8))
        for i in range(n)
    ]


def truth(images, questions):
    """What the server says when nothing is wrong, computed here."""
    wanted = []
    for image, question in zip(images, questions, strict=True):
        data = server("http://127.0.0.1")._data_url(image).partition(",")[2]
        wanted.append(f"{hashlib.sha256(base64.b64decode(data)).hexdigest()} {question}")
    return wanted


FAULTS = [500] * 30 + ["stall"] * 10 + ["reset"] * 5 + ["truncated"] * 3 + [429] * 2 + [None] * 50


def test_half_of_all_requests_fail_and_no_answer_is_lost_or_given_to_another(full, eye):
    """R12: 30 % of status 500, 10 % too late, 5 % cut off, 3 % half a JSON, 2 % of status 429, of every attempt."""
    number, eye.stall, patience = (10_000, 5.0, 2.5) if full else (1_000, 0.4, 0.2)
    dice = random.Random(0)
    eye.fault = lambda answer: dice.choice(FAULTS)
    images, questions = shown(number), [f"what is {i}?" for i in range(number)]
    right, files, began = truth(images, questions), open_files(), time.monotonic()
    got = server(eye.url, concurrency=32, timeout_seconds=patience, deadline_seconds=60.0).ask(
        images, questions
    )
    print(
        f"\n{number} questions in {time.monotonic() - began:.0f} s, {len(eye.asked)} requests:"
        f" {sum(not answer.text for answer in got)} lost, {len(got) - len({answer.text for answer in got})} twice,"
        f" {sum(answer.text != wanted for answer, wanted in zip(got, right, strict=True))} given to another"
    )
    assert got == list(map(Answer, right))
    assert len(eye.asked) > 1.5 * number
    if files is not None:
        assert open_files() < files + 40  # those of the server's last, stalled, threads


def open_files():
    here = Path("/proc/self/fd")
    return len(list(here.iterdir())) if here.exists() else None


def test_a_run_against_a_failing_server_is_the_run_against_a_well_one(judge, eye, tmp_path):
    dice = random.Random(1)
    eye.stall = 0.4
    reward = {"name": "alignment", **judge, "vlm": "eye", "server": eye.url, "timeout_seconds": 0.2}
    train(tiny.config(reward=reward, epochs=3), tmp_path / "well")
    eye.fault = lambda answer: dice.choice(FAULTS)
    asked = len(eye.asked)
    train(tiny.config(reward=reward, epochs=3), tmp_path / "failing")
    assert len(eye.asked) - asked > 1.3 * asked
    assert measured(tmp_path / "failing") == measured(tmp_path / "well")
    ours, theirs = tiny.weights(tmp_path / "failing"), tiny.weights(tmp_path / "well")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_no_more_questions_are_under_way_than_allowed(eye):
    under_way, most = [], []

    def fault(answer):
        under_way.append(answer)
        most.append(len(under_way))
        eye.lock.release()
        time.sleep(0.02)
        eye.lock.acquire()
        under_way.remove(answer)

    eye.fault = fault
    server(eye.url, concurrency=3).ask(shown(30), [f"{i}?" for i in range(30)])
    assert max(most) == 3


@pytest.mark.parametrize("fault", [400, 404, 422, "huge"])
def test_a_question_that_is_refused_is_asked_once_and_harms_no_other(fault, eye):
    images, questions = shown(3), ["a?", "b?", "c?"]
    eye.fault = lambda answer: fault if answer.endswith("b?") else None
    right = truth(images, questions)
    assert server(eye.url).ask(images, questions) == [
        Answer(right[0]),
        Answer("", "failed"),
        Answer(right[2]),
    ]
    assert len(eye.asked) == 3


@pytest.mark.parametrize("fault", [500, "html", "null", "reset", "stall", "drip"])
def test_after_the_deadline_the_run_is_told_and_may_ask_again(fault, eye):
    eye.fault = lambda answer: fault
    began = time.monotonic()
    with pytest.raises(RewardError, match="gave no answer for 1 seconds: ") as error:
        server(eye.url, deadline_seconds=1.0).ask(shown(2), ["a?", "b?"])
    assert error.value.passing and error.value.status == "timeout"
    assert time.monotonic() - began < 8
    assert len(eye.asked) > 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("2.5", 2.5),
        ("-3", 0),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("2015", 2015),
    ],
)
def test_how_long_a_server_asks_to_wait(header, seconds):
    assert _asked_wait(header) == seconds


def test_a_server_may_ask_to_wait_until_a_date():
    assert (
        50
        < _asked_wait(format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True))
        <= 60
    )


def test_one_question_without_an_answer_keeps_no_other_from_its_own(eye):
    images, questions = shown(3), ["a?", "b?", "c?"]
    eye.fault = lambda answer: 500 if answer.endswith("b?") else None
    right = truth(images, questions)
    got = server(eye.url, deadline_seconds=1.0).ask(images, questions)
    assert got == [Answer(right[0]), Answer("", "timeout"), Answer(right[2])]


def test_a_slow_server_that_answers_is_not_given_up(eye):
    """Five questions in turn, longer in all than the deadline, but each within it."""
    eye.fault = lambda answer: time.sleep(0.3)
    assert all(
        answer.status == "ok"
        for answer in server(eye.url, concurrency=1, deadline_seconds=1.0).ask(shown(5), ["a?"] * 5)
    )


@pytest.mark.parametrize(
    ("fault", "said"), [(302, "redirects"), (401, "asks for a key"), (403, "asks for a key")]
)
def test_what_waiting_would_not_mend_is_told_at_once(fault, said, eye):
    eye.fault = lambda answer: fault
    with pytest.raises(RewardError, match=said):
        server(eye.url).ask(shown(1), ["a?"])
    assert len(eye.asked) == 1


def test_the_key_is_sent_and_stands_nowhere(eye, judge, tmp_path, monkeypatch):
    monkeypatch.setenv("EYE_KEY", "canary-123\n")
    reward = {
        "name": "alignment",
        **judge,
        "vlm": "eye",
        "server": eye.url,
        "key_variable": "EYE_KEY",
    }
    train(tiny.config(reward=reward, epochs=1), tmp_path / "run")
    assert {key for _, key in eye.asked} == {"Bearer canary-123"}
    assert not [
        path
        for path in (tmp_path / "run").rglob("*")
        if path.is_file() and b"canary" in path.read_bytes()
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"server": "localhost:8000"}, "must look like http://"),
        (
            {"server": "http://example.org/v1"},
            "prompts and images would be sent to example.org in the clear",
        ),
        ({"server": "ftp://a/v1"}, "must look like http://"),
        ({"server": "http://me:secret@127.0.0.1/v1"}, "the address must not contain a password"),
        (
            {"server": "http://example.org/v1", "key_variable": "HOME", "allow_plain_http": True},
            "example.org in the clear",
        ),
        (
            {"server": "http://127.0.0.1/v1", "key_variable": "NOT_THERE_42"},
            "the environment has no NOT_THERE_42",
        ),
        (
            {"server": "http://127.0.0.1/v1", "key_variable": "BROKEN_KEY"},
            "BROKEN_KEY holds characters that an HTTP header cannot contain",
        ),
        ({"server": "http://127.0.0.1/v1", "concurrency": 0}, "reward.concurrency: "),
    ],
)
def test_an_address_that_cannot_be(options, said, monkeypatch):
    monkeypatch.setenv("BROKEN_KEY", "sk-\nsecret")
    with pytest.raises(ConfigError, match=said) as error:
        tiny.loaded({"name": "vqa", **options})
    assert "secret" not in str(error.value)


def measured(run):
    """Metrics and rewards, however often they were asked for."""
    rewards = [{**row, "attempts": 0} for row in tiny.numbers(run, "rewards.jsonl")]
    return tiny.numbers(run), rewards


def test_a_server_that_goes_away_and_comes_back(judge, full, tmp_path):
    """While it is away for less than its deadline, or the run's, nothing is lost; for more, the run stops and is resumed."""
    eye = EyeServer()
    port, where = eye.server_port, eye.url
    reward = {"name": "alignment", **judge, "vlm": "eye", "server": where, "timeout_seconds": 1.0}
    train(tiny.config(reward=reward, epochs=2), tmp_path / "straight")
    eye.stop()
    for name, patience in (("waited", {}), ("waited long", {"deadline_seconds": 0.2})):
        back_again = []
        away = 60.0 if full else 2.0
        back = threading.Timer(away, lambda place=back_again: place.append(EyeServer(port)))
        back.start()
        began = time.monotonic()
        train(tiny.config(reward=reward | patience, epochs=2), tmp_path / name)
        print(f"\n{name}: away for {away:g} s, the run took {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began < away + 30
        back_again[0].stop()
        assert measured(tmp_path / name) == measured(tmp_path / "straight")
    plan = tiny.config(
        reward=reward | {"deadline_seconds": 0.5}, epochs=2, scoring={"deadline_seconds": 1.0}
    )
    began = time.monotonic()
    with pytest.raises(
        RewardError, match="returned nothing for 1 seconds: .* gave no answer for 0.5 seconds"
    ):
        train(plan, tmp_path / "stopped")
    assert time.monotonic() - began < 10
    eye = EyeServer(port)
    resume(tmp_path / "stopped")
    eye.stop()
    assert measured(tmp_path / "stopped") == measured(tmp_path / "straight")
