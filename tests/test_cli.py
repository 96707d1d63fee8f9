"""The command as a user types it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from PIL import Image
from safetensors.torch import load_file

import rediffuse
from rediffuse.cli import COMMANDS, commands, flags, main
from rediffuse.errors import ConfigError
from rediffuse.lookup import trust
from rediffuse.runs.creation import create
from rediffuse.terminal.commands import command, pasteable

TOY = [
    "--model",
    f"{tiny.FILE}:Toy",
    "--sampler.num-steps",
    "4",
    "--prompts-per-epoch",
    "4",
    "--epochs",
    "2",
    "--reward",
    "redness",
]


def run(capsys, *words):
    """Exit code, what it said, what it complained."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


def test_train_then_report_then_sample(capsys, tmp_path, pipeline):
    folder = tmp_path / "run"
    code, out, _ = run(
        capsys,
        "train",
        *TOY,
        "--model",
        f"{tiny.FILE}:Tiny",
        "--model.path",
        pipeline,
        "--run-dir",
        folder,
    )
    assert code == 0
    assert "report.html" in out
    kept = {path.name for path in folder.iterdir()}
    assert kept >= {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "rewards.jsonl",
        "samples",
        "checkpoints",
        "adapter",
        "report.html",
    }
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert row.keys() >= {
        "epoch", "reward_queries", "reward_mean", "reward_std", "reward_redness", "loss", "approx_kl", "grad_norm", "ratio_drift",
        "masked_rewards", "seconds_sampling", "seconds_reward", "seconds_training", "images_per_second", "peak_memory_bytes",
    }  # fmt: skip
    assert (folder / "samples" / "epoch-00002" / "grid.png").exists()
    assert "redness" in (folder / "adapter" / "README.md").read_text()
    (folder / "report.html").unlink()
    assert run(capsys, "report", folder)[0] == 0
    assert (folder / "report.html").exists()
    code, out, _ = run(
        capsys,
        "sample",
        folder,
        "--trust-code",
        "--prompt",
        "a cat",
        "--seed",
        3,
        "--out",
        tmp_path / "picture",
    )
    assert code == 0
    assert Image.open(out.strip()).size == (32, 16)

    code, out, _ = run(
        capsys, "export", folder, "--trust-code", "--to", "kohya", "--checkpoint", "1"
    )
    path = folder / "exported" / "run-1-kohya.safetensors"
    assert (code, out.strip()) == (0, str(path))
    assert {name.partition(".")[2] for name in load_file(path)} == {
        "lora_up.weight",
        "lora_down.weight",
        "alpha",
    }
    code, _, err = run(
        capsys, "export", folder, "--trust-code", "--to", "kohya", "--checkpoint", "7"
    )
    assert code == 2 and "there are newest" in err


def test_evaluate_tells_before_and_after_in_the_terminal_and_the_folder(capsys, tmp_path):
    folder = tmp_path / "run"
    held_out = ["--evaluation.held-out", "jpeg_compressibility"]
    assert run(capsys, "train", *TOY, *held_out, "--run-dir", folder)[0] == 0
    few = [
        "--prompts",
        "own",
        "unseen_animals",
        "--num-prompts",
        2,
        "--images-per-prompt",
        2,
        "--trust-code",
    ]
    code, out, err = run(capsys, "evaluate", folder, *few)
    assert code == 0, err
    assert (
        "unseen_animals: 4 images of 2 prompts" in out
        and "redness" in out
        and "jpeg_compressibility" in out
    )
    found = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert found["rewards"] == ["redness", "jpeg_compressibility"]
    code, out, _ = run(capsys, "evaluate", folder, *few, "--rewards", "jpeg_incompressibility")
    assert code == 0 and "redness" not in out
    for wrong, said in (
        (["--checkpoint", "last"], "--checkpoint: no 'last'"),
        (["--prompts", "everyday_object"], "Did you mean 'everyday_objects'?"),
        (["--num-prompts", "0"], "--num-prompts: 0 requested"),
        (["--rewards", "asthetic"], "Did you mean 'aesthetic'?"),
    ):
        code, _, err = run(capsys, "evaluate", folder, "--trust-code", *wrong)
        assert code == 2 and said in err


def test_a_run_that_was_copied_without_its_model_still_has_its_page(capsys, tmp_path, pipeline):
    model = tmp_path / "model"
    shutil.copytree(pipeline, model)
    words = [
        "--model",
        f"{tiny.FILE}:Tiny",
        "--model.path",
        model,
        "--evaluation.held-out",
        "jpeg_compressibility",
    ]
    assert run(capsys, "train", *TOY, *words, "--run-dir", tmp_path / "run")[0] == 0
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere")
    shutil.rmtree(model)
    (tmp_path / "elsewhere" / "report.html").unlink()
    code, _, err = run(capsys, "evaluate", tmp_path / "elsewhere", "--trust-code")
    assert code == 2 and str(model) in err and "Traceback" not in err
    code, out, _ = run(capsys, "report", tmp_path / "elsewhere")
    assert code == 0 and "The run is too short to judge." in out
    assert "jpeg_compressibility" in (tmp_path / "elsewhere" / "report.html").read_text()
    code, out, _ = run(capsys, "report", tmp_path)
    assert code == 0 and out.strip() == str(tmp_path / "index.html")
    code, _, err = run(capsys, "report", tmp_path, "--follow")
    assert code == 2 and "it follows one run at a time" in err


def test_the_best_checkpoint_can_be_sampled(capsys, tmp_path):
    folder = tmp_path / "run"
    assert run(capsys, "train", *TOY, "--run-dir", folder)[0] == 0
    for name in ("newest", "best", "1"):
        words = [
            "--trust-code",
            "--prompt",
            "a cat",
            "--checkpoint",
            name,
            "--out",
            tmp_path / f"{name}.png",
        ]
        assert run(capsys, "sample", folder, *words)[0] == 0
    pixels = {name: (tmp_path / f"{name}.png").read_bytes() for name in ("newest", "best", "1")}
    assert pixels["newest"] == pixels["best"] != pixels["1"]


def test_what_was_trained_with_a_reward_that_is_gone_can_still_be_sampled(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def dark(images, prompts):\n    return -images.mean((1, 2, 3))\n"
    )
    run(
        capsys,
        "train",
        *TOY,
        "--reward",
        f"{tmp_path / 'mine.py'}:dark",
        "--run_dir",
        tmp_path / "run",
    )
    (tmp_path / "mine.py").unlink()
    code, out, _ = run(capsys, "sample", tmp_path / "run", "--trust-code", "--prompt", "a cat")
    assert code == 0
    assert Image.open(out.strip()).size == (8, 4)


def test_a_function_of_ones_own_is_a_reward(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def dark(images, prompts):\n    return [-float(image.mean()) for image in images]\n"
    )
    code, _, _ = run(
        capsys,
        "train",
        *TOY,
        "--reward",
        f"{tmp_path / 'mine.py'}:dark",
        "--run-dir",
        tmp_path / "run",
    )
    assert code == 0
    assert "reward_dark" in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "demo/nothing"], "No recipe 'demo/nothing'"),
        (["train", "--epoch", "3"], "Did you mean 'epochs'"),
        (["train", "--algorithm.advantag", "batch"], "Did you mean 'advantage'"),
        (["train", "--reward", "jpeg"], "among rewards"),
        (["train", "--epochs", "0"], "epochs: "),
        (["train", "--epochs", "-3"], "epochs: "),
        (["train", "--learning-rate", "-1"], "learning_rate: "),
        (["train", "--sampler.num-steps", "0"], "sampler.num_steps: "),
        (
            ["train", "--updates-per-epoch", "1000", "--algorithm", "ddpo_is"],
            "1000 updates need as many samples",
        ),
        (["train", "--updates-per-epoch", "2"], "exactly one update"),
        (["train", "--epochs"], "expected a value"),
        (["train", "--algorithm", "[1]"], "algorithm.name: no '[1]'"),
        (["train", "--reward", "os:sep"], "is str, not a class or a function"),
        (["train", "--algorithm", "os:getcwd"], "lacks what algorithms must have: 'loss'"),
        (["train", "--reward", "decimal:Context"], "or name a function"),
        (["train", "--prompts", "os:getcwd"], "lacks what prompts must have: 'draw'"),
        (["train", "--model.guidance-scale", ".inf"], "model.guidance_scale: "),
        (["train", "--learning-rate", ".inf"], "learning_rate: "),
        (["train", "--sampler.eta", "3"], "sampler.eta: "),
        (
            ["train", "--algorithm", "rwr_sparse", "--algorithm.percentile", "101"],
            "algorithm.percentile: ",
        ),
        (
            ["train", "--algorithm", "rwr", "--algorithm.inverse-temperature", "0"],
            "algorithm.inverse_temperature: ",
        ),
        (
            ["train", "--prompts", "text_file", "--prompts.path", "/"],
            "rediffuse: prompts.path: cannot read /: Is a directory.\n",
        ),
        (
            [
                "train",
                "--model",
                "stable_diffusion",
                "--model.source",
                "/",
                "--model.revision",
                "v1",
            ],
            "model.revision: / is on this machine",
        ),
        (["train", "--sampler.num-quiet-steps", "8"], "num_quiet_steps"),
        (["train", "demo/compressibility", "3"], "a recipe stands before all flags"),
        (["train", "--model.path=[", "--epochs=1"], "cannot read"),
        (["resume", "/"], "is not a run"),
        (["report", "/nowhere"], "is not a run"),
        (["evaluate", "/nowhere"], "is not a run"),
        (["train", "--evaluation.held-out", "asthetic"], "no 'asthetic' among rewards"),
        (
            ["train", "--evaluation.held-out", "[{name: redness, quality: 3}]"],
            "'redness' has no such option",
        ),
        (["train", "--evaluation.held-out", "3"], "evaluation.held_out: "),
        (["train", "--evaluation.held-out", "[[]]"], "evaluation.held_out.0: "),
        (
            ["train", "--evaluation.on-overoptimisation", "panic"],
            "evaluation.on_overoptimisation: ",
        ),
        (["list", "everything"], "invalid choice"),
        (["resume"], "required"),
        (["resume", "x", "--clip", "3"], "no such option"),
    ],
)
def test_bad_input_exits_2_and_says_what_there_is(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *words)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_bad_input_loads_no_model_and_not_even_torch(tmp_path):
    code = (
        "import sys; from rediffuse.cli import main\n"
        "try: main(['train', '--algorithm.clip', '3', '--run-dir', 'x'])\n"
        "except SystemExit as stop: sys.exit(100 + stop.code if not {'torch', 'diffusers', 'transformers'} & set(sys.modules) else 1)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False
        ).returncode
        == 102
    )


def test_a_sampler_that_draws_nothing_cannot_train(capsys, tmp_path):
    code, _, err = run(capsys, "train", *TOY, "--sampler.eta", "0", "--run-dir", tmp_path / "run")
    assert code == 2
    assert "no likelihood to train with" in err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_exists_is_refused_and_kept(capsys, tmp_path):
    create(tmp_path / "run", tiny.config())
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    code, _, err = run(capsys, "train", *TOY, "--run-dir", tmp_path / "run")
    assert code == 2
    assert "rediffuse resume" in err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


def test_a_place_that_cannot_be_written_to_is_named(capsys, tmp_path, monkeypatch):
    def refused(path, *args, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    code, _, err = run(capsys, "train", *TOY, "--run-dir", tmp_path / "run")
    assert code == 2
    assert (
        f"Cannot write to {tmp_path / 'run'}: Permission denied. Choose another --run-dir." in err
    )


@pytest.mark.parametrize(
    "source",
    [
        "class Mine:\n    def __init__(self, needed): pass\n",
        "from dataclasses import dataclass\n@dataclass\nclass Mine:\n    def __post_init__(self): open('/nowhere')\n",
    ],
)
def test_a_component_of_ones_own_that_cannot_be_made_is_bad_input(source, capsys, tmp_path):
    (tmp_path / "mine.py").write_text(source)
    code, _, err = run(
        capsys,
        "train",
        *TOY,
        "--reward",
        f"{tmp_path / 'mine.py'}:Mine",
        "--run-dir",
        tmp_path / "run",
    )
    assert code == 2
    assert "reward.name: cannot make" in err


def test_a_reward_that_fails_exits_75_with_its_own_traceback(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def broken(images, prompts):\n    return images.nothing_like_it\n"
    )
    words = ["train", *TOY, "--reward", "mine.py:broken", "--run-dir", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "rediffuse", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 75
    assert "The reward broken failed" in done.stderr
    assert "mine.py" in done.stderr and "images.nothing_like_it" in done.stderr


def test_plan_does_the_arithmetic(capsys):
    plan = [
        "--prompts-per-epoch",
        10,
        "--images-per-prompt",
        3,
        "--epochs",
        7,
        "--updates-per-epoch",
        4,
        "--algorithm",
        "ddpo_is",
    ]
    code, out, _ = run(capsys, "plan", *plan)
    assert code == 0
    assert "10 prompts x 3 images = 30 samples" in out
    assert "4 updates of 7 or 8 samples" in out
    assert "210" in out


@pytest.mark.parametrize(
    ("what", "name"),
    [("rewards", "redness"), ("recipes", "demo/compressibility"), ("algorithms", "ddpo_sf")],
)
def test_list_says_a_line_of_each(what, name, capsys):
    code, out, _ = run(capsys, "list", what)
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith(name)]


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_reads(words, capsys):
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "rediffuse" in out


def test_flags_are_nested_and_typed():
    got = flags(
        ["--a.b-c=1", "--a.d", "1e-3", "--reward", "redness", "--reward.x", "[1, two]", "--e=true"]
    )
    assert got == {
        "a": {"b_c": 1, "d": "1e-3"},
        "reward": {"name": "redness", "x": [1, "two"]},
        "e": True,
    }
    with pytest.raises(ConfigError, match="expected a flag"):
        flags(["epochs", "3"])


HOSTILE = "import pathlib\npathlib.Path('ran').touch()\ndef mine(images, prompts):\n    return images.mean((1, 2, 3))\n"


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A recipe and a file as they might come from anywhere; importing the file leaves a mark."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(HOSTILE)
    terms = "[redness, {name: 'mine.py:mine', weight: 0, share: 0.5}]"
    Path("plain.yaml").write_text(
        "extends: demo/incompressibility\nreward: {name: 'mine.py:mine'}\n"
    )
    Path("hidden.yaml").write_text(f"extends: demo/incompressibility\nrewards: {terms}\n")
    Path("held_out.yaml").write_text(
        "extends: demo/incompressibility\nevaluation: {held_out: ['mine.py:mine']}\n"
    )
    return TOY


@pytest.mark.parametrize("recipe", ["plain.yaml", "hidden.yaml", "held_out.yaml"])
@pytest.mark.parametrize("command", ["train", "plan"])
def test_a_recipe_never_makes_code_run_unless_the_command_line_says_so(
    command, recipe, hostile, capsys
):
    code, _, err = run(capsys, command, recipe)
    assert code == 2
    assert (
        f"{recipe} asks to run code, read files, reach servers, send a key or unpickle: mine.py:mine ("
        in err
        and "--trust-code" in err
    )
    assert not Path("ran").exists()
    run(capsys, "plan", recipe, "--trust-code")
    assert Path("ran").exists()


def test_what_the_command_line_names_is_run(hostile, capsys):
    assert run(capsys, "plan", "plain.yaml", "--reward", "mine.py:mine")[0] == 0
    assert Path("ran").exists()
    Path("ran").unlink()
    assert run(capsys, "plan", "--evaluation.held-out", "mine.py:mine")[0] == 0
    assert Path("ran").exists()


def test_nor_does_the_folder_of_a_run(hostile, capsys):
    assert run(capsys, "train", *hostile, "--reward", "mine.py:mine", "--run-dir", "run")[0] == 0
    Path("ran").unlink()
    # what this machine's owner typed is remembered of the place where it was
    Path("run").rename("theirs")
    code, _, err = run(capsys, "resume", "theirs", "--epochs", "3")
    assert (
        code == 2
        and "theirs asks to run code, read files" in err
        and "mine.py:mine (reward.name)" in err
    )
    code, _, err = run(capsys, "sample", "theirs", "--prompt", "a cat")
    assert code == 2 and "(model.name)" in err and "reward" not in err
    assert not Path("ran").exists()
    assert run(capsys, "resume", "theirs", "--trust-code", "--epochs", "3")[0] == 0
    assert Path("ran").exists()


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (
            "reward: {name: remote, url: 'https://example.org', key_variable: HOME}",
            "HOME (reward.key_variable)",
        ),
        (
            "model: {name: stable_diffusion, source: a/b, allow_pickle: true}",
            "true (model.allow_pickle)",
        ),
    ],
)
def test_nor_does_a_recipe_send_a_key_or_unpickle(line, asked, capsys, tmp_path):
    (tmp_path / "r.yaml").write_text(f"extends: demo/incompressibility\n{line}\n")
    code, _, err = run(capsys, "plan", tmp_path / "r.yaml")
    assert code == 2 and asked in err
    assert run(capsys, "plan", tmp_path / "r.yaml", "--trust-code")[0] == 0


def test_the_command_alone_shows_its_help_its_version_and_everything_there_is(capsys):
    code, out, _ = run(capsys)
    assert code == 0 and "train" in out and "usage: rediffuse" in out
    code, out, _ = run(capsys, "--version")
    assert code == 0 and out == f"rediffuse {rediffuse.__version__}\n"
    code, out, _ = run(capsys, "list")
    lines = out.splitlines()
    assert code == 0
    for heading, name in (
        ("rewards", "redness"),
        ("recipes", "demo/compressibility"),
        ("algorithms", "ddpo_sf"),
        ("models", "emoji"),
    ):
        assert heading in lines and any(line.startswith(f"  {name} ") for line in lines)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        *[[name, "--help"] for name in COMMANDS],
        ["list"],
        ["plan"],
        ["plan", "paper/compressibility"],
        ["list", "x"],
        ["trian"],
    ],
)
def test_nothing_is_wider_than_a_terminal_of_80_columns(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, err = run(capsys, *words)
    assert out or err
    for line in (out + err).splitlines():
        assert len(line) <= 80, line


def test_a_training_fits_80_columns_too_but_for_its_paths(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(
        capsys,
        "train",
        *TOY,
        "--model",
        f"{tiny.FILE}:Toy",
        "--run-dir",
        "r",
        "--evaluation.held-out",
        "jpeg_compressibility",
    )
    assert code == 0, err
    code, table, err = run(
        capsys,
        "evaluate",
        "r",
        "--prompts",
        "unseen_animals",
        "--num-prompts",
        "2",
        "--images-per-prompt",
        "1",
    )
    assert code == 0, err
    code, compared, _ = run(capsys, "compare", "r")
    assert "rediffuse resume r --epochs 4" in out.splitlines()[-2] and "kl 0.0e+00" not in out
    for line in (out + table + compared).splitlines():
        assert len(line) <= 80 or tiny.FILE in line, line


ODD_NAME = 'it\'s $HOME "and" `more`; a folder'


def test_a_printed_command_can_be_pasted_whatever_the_folder_is_called(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "train", *TOY, "--run-dir", ODD_NAME)[0] == 0
    _, _, again = run(capsys, "train", *TOY, "--run-dir", ODD_NAME)
    _, judged, _ = run(capsys, "report", ODD_NAME)
    for said, rest in ((again, []), (judged, ["--epochs", "4"])):
        printed = next(
            line[line.index("rediffuse resume") :]
            for line in said.splitlines()
            if "rediffuse resume" in line
        )
        words = json.loads(pasted(printed))
        assert words == ["resume", ODD_NAME, *rest]
    monkeypatch.setattr(trust, "_remembered", lambda run: {})
    _, _, again = run(capsys, "train", *TOY, "--run-dir", ODD_NAME)
    assert json.loads(pasted(again[again.index("rediffuse resume") :])) == [
        "resume",
        ODD_NAME,
        "--trust-code",
    ]


def pasted(printed):
    """What the command of that line would be given."""
    stand_in = f'rediffuse() {{ "{sys.executable}" -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", stand_in + printed], capture_output=True, text=True, check=True
    ).stdout


def test_odd_words_of_a_command_are_quoted():
    for word in ("a b", "it's", "$x", "-r", "a\nb", "a\x1b[2Jb", "ö"):
        assert json.loads(pasted(command("resume", Path(word))))[1].removeprefix("./") == word
    assert (
        pasteable("go: rediffuse sample RUN --seed 1", Path("a b"), lambda run: True)
        == "go: rediffuse sample 'a b' --trust-code --seed 1"
    )
    assert (
        pasteable("what `rediffuse report` makes", Path("a"), lambda run: True)
        == "what `rediffuse report` makes"
    )


def test_every_command_does_something():
    """Those with a recipe, those with a run, and serve, whose options are its reward's."""
    assert {*commands.WITH_CONFIG, *commands.OTHERS, "serve"} == set(COMMANDS)
