"""YAML, flags and files that anybody may have written."""

import gc
import os
import random
import socket
import string
import time
from pathlib import Path

import pytest
import tiny
import yaml

from rediffuse.cli import flags, main
from rediffuse.config.reading import (
    MOST_BYTES,
    MOST_DEPTH,
    file_bytes,
    flag_value,
    read_yaml,
    yaml_value,
)
from rediffuse.config.recipes import read_recipe, resolved
from rediffuse.config.schema import PositiveInt, from_mapping, to_yaml
from rediffuse.errors import ConfigError, RediffuseError, quoted
from rediffuse.lookup.build import build
from rediffuse.lookup.parts import assemble

DIGITS = "1" * 5000
LAUGHS = "\n".join(
    ["a: &a [x, x]"]
    + [
        f"{k}: &{k} [{', '.join([f'*{j}'] * 9)}]"
        for j, k in zip("abcdefgh", "bcdefghi", strict=True)
    ]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, r"line 1: anchors .* are not supported"),
        ("a: 1\nb: *a\n", "line 2: anchors"),
        ("epochs: &x 1\n", "line 1: anchors"),
        ("epochs: !!float ''\n", "line 1: the tag '.*float' is not supported"),
        ("a: 1\nb: !!python/object/apply:os.system [x]\n", "line 2: the tag"),
        ("epochs: !mine 3\n", "line 1: the tag '!mine'"),
        ("epochs: 1\nseed: 2\nepochs: 3\n", "line 3: 'epochs' is already set in line 1"),
        ("reward: {name: a,\n name: b}\n", "line 2: 'name' is already set in line 1"),
        (f"seed: {DIGITS}\n", "line 1: '111.*… is not a valid int"),
        ("a: 0x_\n", "line 1: '0x_' is not a valid int"),
        ("a: " + "[" * 900 + "]" * 900, f"line 1: nested more than {MOST_DEPTH} deep"),
        (
            "a:\n" + "".join(f"{' ' * n}a:\n" for n in range(1, 60)),
            f"line 21: nested more than {MOST_DEPTH}",
        ),
        ("a: " + "x" * MOST_BYTES, "larger than 1 MB"),
        ("1: 2\n", "line 1: the key '1' is not text"),
        ("? [a, b]\n: 2\n", "line 1: the key '…' is not text"),
        ("on: 2\n", "line 1: the key 'on' is not text"),
        ("a: b: c\n", "line 1: cannot read it as YAML"),
        ("a: 1\n---\nb: 1\n", "cannot read it as YAML: but found another document"),
        ("a: \x00", "cannot read it as YAML"),
    ],
)
def test_what_yaml_may_hold_that_is_not_read(text, said):
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=f"^here.*{said}") as caught:
        yaml_value(text, "here")
    assert len(str(caught.value)) < 400
    assert time.perf_counter() - began < 1


def test_what_is_deep_or_large_but_within_the_limits_is_read():
    """The control of the test above."""
    assert yaml_value("a: " + "[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1), "here")
    assert len(yaml_value("a: " + "x" * (MOST_BYTES - 10), "here")["a"]) == MOST_BYTES - 10
    assert yaml_value("a: ['&b', \"*c\", '!d', 'e', \"1\"]\nb: 1.5\nc: true\nd: ~\n", "here") == {
        "a": ["&b", "*c", "!d", "e", "1"],
        "b": 1.5,
        "c": True,
        "d": None,
    }


@pytest.mark.parametrize("text", ["2024-13-45", "2024-01-02", "<<", "=", "2024-01-02 25:61:61"])
def test_dates_and_yamls_own_signs_are_text(text):
    assert yaml_value(f"a: {text}", "here") == {"a": text}
    with pytest.raises(ConfigError, match=f"seed: .*valid integer.*got '{text}'"):
        from_mapping(yaml_value(f"seed: {text}", "here"))


def test_what_a_run_writes_is_read_again(tmp_path):
    config = tiny.config(
        prompts={"name": "text_file", "path": "2024-01-02 #1 &a *b !c.txt"}, reward={"name": "on"}
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert from_mapping(read_yaml(tmp_path / "config.yaml")) == config


def test_long_values_are_cut_in_messages():
    with pytest.raises(ConfigError) as caught:
        from_mapping({"seed": "x" * 100_000, "epochs": 10**6000, "reward": ["y"] * 10_000})
    assert len(str(caught.value)) < 1000
    endless: list = []
    for _ in range(100_000):
        endless = [endless]
    assert quoted(10**6000) == "int too long to show" and quoted(endless) == "list too long to show"
    assert quoted(Path("a")) == "'a'"


PATHS = [
    "a #2 list.txt",
    "list: new.txt",
    "123",
    "true",
    "[a].txt",
    "*",
    "&b",
    "!c",
    "1e3",
    "a\tb",
    "'quoted'",
    "- x",
]


@pytest.mark.parametrize("text", PATHS)
@pytest.mark.parametrize("together", [True, False])
def test_a_flag_of_a_text_option_is_the_text_as_it_stands(text, together, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(text).write_text("a cat\n")
    words = [f"--prompts.path={text}"] if together else ["--prompts.path", text]
    assert flags(["--prompts", "text_file", *words])["prompts"]["path"] == text
    built = (
        build("prompts", flags(["--prompts", "text_file", *words])["prompts"])
        if "." in text
        else None
    )
    assert built is None or [prompt.text for prompt in built.prompts] == ["a cat"]


def test_a_flag_is_read_by_the_type_of_its_option(tmp_path, monkeypatch):
    model = {"model": {"name": "stable_diffusion"}}
    assert flags(["--model.revision", "1234567"], model) == {"model": {"revision": "1234567"}}
    assert flags(["--model.revision", "null"], model) == {"model": {"revision": None}}
    assert flags(["--model.guidance-scale", "3"], model) == {"model": {"guidance_scale": 3}}
    assert flags(["--model.lora-targets", "[a, b]"], model) == {
        "model": {"lora_targets": ["a", "b"]}
    }
    assert flags(["--model.revision", "1234567"]) == {"model": {"revision": 1234567}}, (
        "nothing names the model"
    )
    assert flags(["--reward", "on"]) == {"reward": {"name": "on"}}
    assert flags(["--evaluation.held-out", "a #1.py:f"]) == {
        "evaluation": {"held_out": "a #1.py:f"}
    }
    assert flag_value("'a'", "here") == "a"
    monkeypatch.chdir(tmp_path)
    mine = "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    say: str = ''\n    n: int | None = 0\n    path: 'str | None' = None\n"
    Path("mine.py").write_text(mine)
    got = flags(
        [
            "--reward",
            "mine.py:Mine",
            "--reward.say",
            "007",
            "--reward.n",
            "3",
            "--reward.path",
            "null",
        ]
    )
    assert got["reward"] == {"name": "mine.py:Mine", "say": "007", "n": 3, "path": None}
    assert flags(["--reward.say", "007"], {"reward": {"name": "mine.py:Mine"}})["reward"] == {
        "say": 7
    }, "nobody typed its name"


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Paths of what is no plain file."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    Path("folder.yaml").mkdir()
    Path("zero.yaml").symlink_to("/dev/zero")
    Path("loop.yaml").symlink_to("loop.yaml")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.yaml")
        yield tmp_path


@pytest.mark.parametrize("name", ["pipe", "folder", "zero", "loop", "socket", "missing"])
def test_what_is_no_plain_file_is_refused_at_once(name, odd, capsys):
    for words in (
        ["plan", f"{name}.yaml"],
        ["plan", "--prompts", "text_file", "--prompts.path", f"{name}.yaml"],
        ["plan", "--reward", f"{name}.py:mine"],
        ["plan", "--model", "stable_diffusion", "--model.source", f"./{name}.yaml"],
    ):
        if words[1] == "--reward" and Path(f"{name}.yaml").exists():
            Path(f"{name}.yaml").rename(f"{name}.py")
        elif Path(f"{name}.py").exists():
            Path(f"{name}.py").rename(f"{name}.yaml")
        if "--model" in words and name in ("folder", "loop", "missing"):
            continue
        began = time.perf_counter()
        with pytest.raises(SystemExit) as stop:
            main(words)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and name in err and "Traceback" not in err, (words, err)
        assert time.perf_counter() - began < 5


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert file_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ConfigError, match="larger than"):
        file_bytes(tmp_path / "file", 4)
    with pytest.raises(ConfigError, match="is a device"):
        file_bytes(Path("/dev/zero"), 4)


def test_the_paths_of_a_recipe_are_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recipes"
    (folder / "models" / "base").mkdir(parents=True)
    (folder / "base.yaml").write_text(
        "extends: demo/incompressibility\n"
        "prompts: {name: text_file, path: mine.txt}\n"
        "model: {name: stable_diffusion, source: models/base}\n"
        "rewards: ['mine.py:mine', {name: clip_score, clip: ./clip}, {name: clip_score, clip: a/b}]\n"
        "with_algorithm: {rwr: {prompts: {path: /absolute.txt}}}\n"
    )
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.yaml").write_text(
        "extends: ../base.yaml\nprompts: {path: ../other.txt}\n"
    )
    recipe = read_recipe("recipes/base.yaml")
    assert recipe["prompts"]["path"] == "recipes/mine.txt"
    assert recipe["model"]["source"] == "recipes/models/base"
    assert recipe["rewards"] == [
        {"name": "recipes/mine.py:mine"},
        {"name": "clip_score", "clip": "recipes/clip"},
        {"name": "clip_score", "clip": "a/b"},
    ]
    (folder / "short.yaml").write_text(
        "reward: 'mine.py:mine'\nevaluation: {held_out: ['mine.py:mine', redness]}\n"
    )
    assert read_recipe("recipes/short.yaml")["rewards"] == [
        {"name": "recipes/mine.py:mine"},
        {"name": "recipes/mine.py:mine", "weight": 0},
        {"name": "redness", "weight": 0},
    ]
    assert resolved(recipe, {"algorithm": {"name": "rwr"}}).prompts["path"] == "/absolute.txt"
    assert read_recipe("recipes/sub/mine.yaml")["prompts"] == {
        "name": "text_file",
        "path": "recipes/sub/../other.txt",
    }
    assert resolved(recipe, {"prompts": {"path": "typed.txt"}}).prompts["path"] == "typed.txt", (
        "a flag's is the shell's"
    )


VALUES = [
    *(
        "",
        "null",
        "[]",
        "{}",
        "-1",
        "0",
        "nan",
        ".nan",
        ".inf",
        "-.inf",
        "1e400",
        "1e30",
        "1" + "0" * 30,
        DIGITS,
        "2024-13-45",
    ),
    *(
        "!!float ''",
        "&a b",
        "*a",
        "'",
        '"',
        "{a: ",
        "[" * 900,
        "~",
        "true",
        "\x00",
        "\ud83d",
        "\x1b[31m",
        "é" * 999,
        "../../x",
        "/",
    ),
    *(
        "a: b: c",
        "? x",
        "- x",
        "%",
        "@",
        "`",
        "|",
        ">",
        "{name: redness}",
        "[{name: redness}]",
        "[{weight: 1}]",
        "~nobody/x",
        "a\\0b",
    ),
    *(
        "0x_",
        "0b2",
        "1:60",
        "12e",
        "on",
        "a" * 5000,
        "[1, 2]",
        "\ufeff1",
        "{? : }",
        "{1: 2}",
        "\u2028",
        "a:b",
        ":",
        "::",
        "x.py:",
        ".py:x",
    ),
]
KEYS = [
    *(
        "seed",
        "epochs",
        "prompts_per_epoch",
        "learning_rate",
        "micro-batch-size",
        "ema-decay",
        "model",
        "sampler",
        "algorithm",
        "reward",
    ),
    *(
        "prompts",
        "optimizer",
        "optimizer.betas",
        "scoring.max_failed",
        "logging.report-every",
        "evaluation",
        "evaluation.held-out",
    ),
    *(
        "evaluation.on-overoptimisation",
        "sampler.num-steps",
        "sampler.eta",
        "algorithm.clip-range",
        "model.lora-rank",
        "model.precision",
    ),
    *(
        "reward.rewards",
        "reward.quality",
        "prompts.path",
        "",
        ".",
        "a..b",
        "seed.x",
        "seed.x.y",
        "model.name.x",
        "a" * 3000,
        "é",
        "with_algorithm",
    ),
    *("extends", "claim", "with_algorithm.rwr", "algorithm.kl-weight", ".".join("x" * 500)),
]


DEMO = read_recipe("demo/incompressibility")


def outcome(make):
    """Whether it is a run; raises anything else than an error that is said."""
    error = None
    try:
        assemble(make())
    except RediffuseError as said:
        error = said
    assert error is None or (error.exit_code == 2 and 0 < len(str(error)) < 5000)
    return error is None


def test_no_flag_ends_in_a_traceback():
    taken = 0
    for key in KEYS:
        for value in VALUES:
            taken += outcome(lambda word=f"--{key}={value}": resolved(DEMO, flags([word], DEMO)))
    assert 20 < taken < len(KEYS) * len(VALUES) / 2, "the control: some are runs"


def mutated(text, draw):
    lines = text.split("\n")
    for _ in range(draw.randint(0, 3)):
        place, value = draw.randrange(len(lines)), draw.choice(VALUES)
        key = lines[place].partition(":")[0]
        lines[place] = draw.choice(
            [
                f"{key}: {value}",
                f"{key}: {{name: {value}}}",
                value,
                lines[place] * 2,
                lines[place] + draw.choice(string.punctuation),
                " " + lines[place],
            ]
        )
    return "\n".join(lines)


def test_no_mutation_of_a_recipe_ends_in_a_traceback(tmp_path):
    """Seeded; what failed is in the message."""
    draw, taken = random.Random(13), 0
    text = to_yaml(resolved(read_recipe("demo/incompressibility"), {}))
    began = time.perf_counter()
    for _ in range(600):
        changed = mutated(text, draw)
        path = tmp_path / "mine.yaml"
        path.write_text(changed, errors="surrogatepass")
        try:
            taken += outcome(lambda path=path: resolved(read_recipe(str(path)), {}))
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\n{changed}") from error
    assert taken > 10
    assert time.perf_counter() - began < 60


@pytest.mark.parametrize("value", [10**30, 10**10])
def test_numbers_have_a_largest(value):
    with pytest.raises(ConfigError, match="epochs: .*less than or equal to 1000000000"):
        from_mapping({"epochs": value})
    with pytest.raises(ConfigError, match="num_steps"):
        build("sampler", {"name": "ddim", "num_steps": value})
    assert PositiveInt and yaml.safe_load("1") == 1


def test_the_garbage_collector_is_off_for_a_large_file_alone(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "rediffuse.prompts.text_file.Prompt", lambda text: seen.append(gc.isenabled())
    )
    (tmp_path / "mine.txt").write_bytes(b"a cat\n\xff\n")
    with pytest.raises(ConfigError, match="line 2 of .* is not UTF-8"):
        build("prompts", {"name": "text_file", "path": str(tmp_path / "mine.txt")})
    assert seen == [False] and gc.isenabled()
