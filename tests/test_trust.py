"""What a stranger's recipe or run folder asks of this machine, and what its owner has allowed."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny
import yaml

from rediffuse import train
from rediffuse.cli import main
from rediffuse.config.declared import KEYS, Option, declared_options, names
from rediffuse.errors import ConfigError
from rediffuse.lookup import trust
from rediffuse.runs.folder import RunFolder

SECRET = "hf_a-token-that-stays-here"


@pytest.fixture
def server():
    """Counts what reaches it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.reached.append(self.path)
            self.send_error(500)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.reached = []
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield service
    service.shutdown()


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran") / "theirs"
    train(tiny.config(epochs=1), folder)
    return folder


def stranger(run, elsewhere, **components):
    """The run's folder as somebody else sends it."""
    copy = Path(shutil.copytree(run, elsewhere))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config |= {"model": {"name": "emoji"}, **components}
    if {"reward", "evaluation"} & components.keys():  # short forms of the list
        del config["rewards"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    return copy


def command(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("word", ["resume", "evaluate"])
def test_a_strangers_run_folder_sends_no_file_out(word, ran, server, tmp_path, capsys):
    (tmp_path / "token").write_text(SECRET)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    asks = {"prompts": {"name": "text_file", "path": str(tmp_path / "token")}}
    asks["reward"] = {"name": "remote", "url": url, "allow_plain_http": True}
    copy = stranger(ran, tmp_path / "run", **asks)
    code, err = command(capsys, word, copy)
    assert code == 2 and server.reached == []
    for place in ("(prompts.path)", "(reward.url)", "(reward.allow_plain_http)", "--trust-code"):
        assert place in err
    assert not [
        path for path in copy.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize(
    ("component", "options"),
    [
        ("prompts", {"name": "text_file", "path": "../secret.txt"}),
        ("prompts", {"name": "text_file", "path": "prompts/link.txt"}),
        ("reward", {"name": "remote", "url": "https://example.org"}),
        ("reward", {"name": "remote", "key_variable": "HOME"}),
        ("reward", {"name": "alignment", "server": "https://example.org/v1"}),
        ("rewards", [{"name": "redness"}, {"name": "remote", "url": "https://e.org"}]),
        ("rewards", [{"name": "redness"}, {"name": "mine.py:mine", "weight": 0, "share": 1}]),
        ("reward", {"name": "clip_score", "clip": "/etc"}),
        ("model", {"name": "stable_diffusion", "source": ".."}),
        ("model", {"name": "stable_diffusion", "source": "~/models"}),
        ("model", {"name": "stable_diffusion", "allow_pickle": True}),
        ("model", {"name": "stable_diffusion", "config": "/somewhere"}),
        ("evaluation", {"held_out": [{"name": "remote", "url": "https://example.org"}]}),
    ],
)
def test_whatever_reaches_out_of_the_folder_takes_a_permission(component, options, ran, tmp_path):
    (tmp_path / "secret.txt").write_text("a secret")
    copy = stranger(ran, tmp_path / "run", **{component: options})
    (copy / "prompts").mkdir()
    (copy / "prompts" / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ConfigError, match="--trust-code"):
        # `existing` refuses the link by itself
        trust.refuse(copy, RunFolder(copy).config(), run=copy)


@pytest.mark.parametrize(
    ("component", "options"),
    [
        ("prompts", {"name": "text_file", "path": "prompts/mine.txt"}),
        ("prompts", {"name": "counting"}),
        ("reward", {"name": "remote"}),
        (
            "reward",
            {
                "name": "alignment",
                "vlm": "Qwen/Qwen2-VL-2B",
                "question": "What is it?",
                "revision": "main",
            },
        ),
        (
            "model",
            {
                "name": "stable_diffusion",
                "source": "stabilityai/stable-diffusion-2-1",
                "revision": "main",
            },
        ),
        ("evaluation", {"held_out": [{"name": "emoji_judge"}]}),
    ],
)
def test_what_is_the_runs_the_packages_or_the_hubs_takes_none(component, options, ran, tmp_path):
    """The control of the test above."""
    copy = stranger(ran, tmp_path / "run", **{component: options})
    (copy / "prompts").mkdir()
    (copy / "prompts" / "mine.txt").write_text("a cat\n")
    trust.refuse(copy, RunFolder(copy).config(), run=copy)


def test_every_option_of_every_component_says_what_it_names():
    for key, room in KEYS.items():
        for name in names(room):
            kinds = {option: each.kind for option, each in declared_options(room, name).items()}
            assert "undeclared" not in kinds.values(), (key, name, kinds)


@pytest.mark.parametrize(
    "annotation", ["str", "Path | None", "Mapping[str, Any]", "list[str]", "Anything"]
)
def test_an_option_that_says_nothing_may_reach_anything(annotation):
    """The control of the test above: a new component is safe unless it is declared."""
    assert Option(annotation, None).kind == "undeclared"
    assert trust._reaches(Option(annotation, None), "x", None)


@pytest.mark.parametrize(
    "annotation",
    ["Literal['a', 'b'] | None", "tuple[Text, ...]", "Annotated[int, Field(ge=1)]", "Positive"],
)
def test_numbers_choices_and_text_are_harmless(annotation):
    assert Option(annotation, None).kind == "harmless"


TOY = [
    "--model",
    f"{tiny.FILE}:Toy",
    "--sampler.num-steps",
    "3",
    "--prompts-per-epoch",
    "2",
    "--images-per-prompt",
    "1",
    "--epochs",
    "1",
]


@pytest.fixture
def own(tmp_path, monkeypatch, capsys):
    """A run whose code, prompts and variable its owner typed."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def mine(images, prompts):\n    return images.mean((1, 2, 3))\n")
    Path("mine.txt").write_text("a cat\na dog\n")
    typed = [
        "--reward",
        "mine.py:mine",
        "--prompts",
        "text_file",
        "--prompts.path",
        "mine.txt",
        "--evaluation.held-out",
        "[]",
    ]
    code, err = command(capsys, "train", "demo/incompressibility", *TOY, *typed, "--run-dir", "run")
    assert code == 0, err
    return tmp_path / "run"


def test_what_its_owner_typed_needs_no_permission_when_he_goes_on(own, capsys):
    assert command(capsys, "resume", own, "--epochs", "2")[0] == 0
    memory = trust._memory(own)
    assert memory.stat().st_mode & 0o077 == 0
    assert own not in memory.parents and json.loads(memory.read_text()).keys() == {
        "model.name",
        "reward.name",
    }


def test_but_a_folder_that_was_moved_or_changed_does(own, tmp_path, capsys):
    shutil.copytree(own, tmp_path / "elsewhere")
    assert command(capsys, "resume", tmp_path / "elsewhere", "--epochs", "2")[0] == 2
    text = (own / "config.yaml").read_text()
    (own / "config.yaml").write_text(text.replace("mine.py:mine", "mine.py:other"))
    code, err = command(capsys, "resume", own, "--epochs", "2")
    assert code == 2 and "mine.py:other (reward.name)" in err and "model.name" not in err


def test_a_run_has_a_copy_of_its_prompts_and_needs_no_other_file(own, capsys):
    Path("mine.txt").unlink()
    assert (own / "prompts" / "mine.txt").read_text() == "a cat\na dog\n"
    assert "path: prompts/mine.txt" in (own / "config.yaml").read_text()
    assert command(capsys, "resume", own, "--epochs", "2")[0] == 0
    assert "path: prompts/mine.txt" in (own / "config.yaml").read_text()


def test_a_run_that_is_moved_with_its_prompts_goes_on(own, tmp_path, capsys):
    own.rename(tmp_path / "moved")
    assert command(capsys, "resume", tmp_path / "moved", "--trust-code", "--epochs", "2")[0] == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("reward: {name: rednes}", "Did you mean 'redness'"),
        ("reward: {name: ../trust}", "reward.name: no '../trust' among rewards"),
        ("reward: {name: ''}", "reward.name: no '' among rewards"),
        ("model: {name: emojy}", "Did you mean 'emoji'"),
        ("rewards: [redness, {name: rednes}]", "Did you mean 'redness'"),
        ("evaluation: {held_out: [rednes]}", "Did you mean 'redness'"),
    ],
)
def test_a_misspelt_component_of_a_file_is_named_and_no_retry_is_advised(
    line, said, tmp_path, capsys
):
    (tmp_path / "mine.yaml").write_text(f"extends: demo/incompressibility\n{line}\n")
    code, err = command(capsys, "plan", tmp_path / "mine.yaml")
    assert code == 2 and said in err and "Traceback" not in err
