"""Why a judge gave no number: read from its answer, kept in rewards.jsonl, and told."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import tiny

from rediffuse import train
from rediffuse.errors import RewardError
from rediffuse.rewards._answers import Answer, said
from rediffuse.rewards._http import _message
from rediffuse.rewards._served import _said

pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("<think>one, two</think>\n\n3", "3"),
        ("one, two, three</think> 3", "3"),
        ("<thinking>4?</thinking>3", "3"),
        ("[THINK]4?[/THINK]3", "3"),
        ("◁think▷4?◁/think▷3", "3"),
        ("3 <think>was it?</think>", "3"),
        ("I think 3 < 4", "I think 3 < 4"),
        ("<think>one, two", ""),
        ("", ""),
    ],
)
def test_reasoning_is_no_part_of_an_answer(text, spoken):
    answer = said(text)
    assert answer == Answer(spoken, "ok" if spoken else "unparseable")
    assert bool(answer.reason) != bool(spoken)


def test_an_answer_in_parts_and_one_without_content():
    def of(**message):
        return _said({"choices": [{"message": message}]})

    assert of(content=[{"type": "text", "text": "3"}]) == Answer("3")
    assert of(content=None, reasoning_content="three of them").reason.endswith(
        "the answer has instead: three of them"
    )
    assert of(content=None, refusal="I will not").status == "unparseable"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no images"}}', "no images"),
        (b'{"error": "no images"}', "no images"),
        (b'{"detail": "Not\\nFound"}', "Not Found"),
        (b"<html>\x1b[31mred", "<html>\\x1b[31mred"),
        (b'{"odd": 1}', '{"odd": 1}'),
        (b"x" * 5000, "x" * 200),
    ],
)
def test_a_server_s_refusal_is_told_in_one_clean_line(body, message):
    assert _message(body) == message


class Odd(BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(200, {"data": [{"id": "m"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.count += 1
        if self.server.count > self.server.well:
            self.reply(*self.server.odd)
        else:
            self.reply(200, {"choices": [{"message": {"content": "<think>2?</think> 3 cats"}}]})

    def reply(self, status, body):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args):
        pass


@pytest.fixture
def odd():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.count, server.well, server.odd = (
        0,
        0,
        (400, {"error": {"message": "this model does not take images"}}),
    )
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def plan(odd, tmp_path, **over):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        json.dumps({"prompt": "three cats", "questions": ["how many?"], "answers": ["3"]}) + "\n"
    )
    url = f"http://127.0.0.1:{odd.server_port}/v1"
    reward = {"name": "vqa", "server": url, "vlm": "m", "concurrency": 1}
    return tiny.config(
        reward=reward, prompts={"name": "text_file", "path": str(prompts)}, epochs=1, **over
    )


def test_what_a_server_refuses_ends_the_run_with_its_reason(odd, tmp_path, capsys):
    with pytest.raises(
        RewardError,
        match="failed.* The first: failed: reason 'status 400: this model does not take images'",
    ):
        train(plan(odd, tmp_path), tmp_path / "run")
    assert "no reward for a sample: failed: reason 'status 400" in capsys.readouterr().out.replace(
        "\n", " "
    )


@pytest.mark.parametrize(
    ("answer", "status", "why"),
    [
        ((400, {"error": {"message": "too dark"}}), "failed", "status 400: too dark"),
        (
            (200, {"choices": [{"message": {"content": "<think>2, 3"}}]}),
            "unparseable",
            "only reasoning",
        ),
        ((200, {"choices": [{"message": {"content": ""}}]}), "unparseable", "an empty answer"),
    ],
)
def test_the_reason_of_each_sample_is_kept(odd, tmp_path, answer, status, why):
    odd.well, odd.odd = 6, answer
    history = train(plan(odd, tmp_path, scoring={"max_failed": 0.5}), tmp_path / "run")
    assert history[0]["reward_mean"] == 1.0 and history[0][f"masked_{status}"] == 2
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    assert [row["status"] for row in rows] == ["ok"] * 6 + [status] * 2
    assert [why in row["notes"]["reason"] for row in rows] == [False] * 6 + [True] * 2
    assert rows[0]["notes"]["answers"] == "3 cats"


def test_the_reason_of_a_sample_on_which_a_function_failed_is_kept(tmp_path):
    seen = []

    def fussy(images, prompts):
        seen.append(1)
        if len(images) > 1 or len(seen) == 3:
            raise ZeroDivisionError("too dark")
        return [float(images.mean())]

    train(
        tiny.config(epochs=1, micro_batch_size=8, scoring={"max_failed": 0.2}),
        tmp_path / "run",
        fussy,
    )
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    assert ["too dark" in row["notes"]["error"] for row in rows].count(True) == 1
