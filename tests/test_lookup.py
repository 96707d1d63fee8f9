import os
import subprocess
import sys
from dataclasses import fields

import pytest
import tiny
import torch

from rediffuse.config.declared import KEYS, declared_options, names
from rediffuse.errors import ConfigError
from rediffuse.lookup.build import build
from rediffuse.lookup.find import find
from rediffuse.lookup.parts import assemble, completed
from rediffuse.types import Prompt


@pytest.mark.parametrize(
    ("key", "options", "said"),
    [
        (
            "reward",
            {"name": "jpeg_compressability"},
            "no 'jpeg_compressability' among rewards: .*Did you mean 'jpeg_compressibility'",
        ),
        (
            "algorithm",
            {"name": "ddpo_is", "clip_rnge": 1},
            r"algorithm\.clip_rnge: 'ddpo_is' has no such option.*Did you mean 'clip_range'",
        ),
        (
            "algorithm",
            {"name": "ddpo_is", "clip_range": 0},
            r"algorithm\.clip_range: .*greater than 0",
        ),
        (
            "algorithm",
            {"name": "ddpo_is", "advantage": "prompt"},
            r"algorithm\.advantage: .*'per_prompt'",
        ),
        ("sampler", {"name": "ddim", "num_steps": "many"}, r"sampler\.num_steps: .*valid integer"),
        ("model", {"name": "emoji", "precision": "fp8"}, r"model\.precision"),
        ("reward", {}, r"reward\.name: no ''"),
        ("reward", {"name": "nowhere.py:x"}, "no such file: nowhere.py"),
        ("reward", {"name": "nowhere.at_all:x"}, "cannot import 'nowhere.at_all'"),
        ("prompts", {"name": "text_file", "path": "nowhere.txt"}, "cannot read nowhere.txt"),
        ("prompts", {"name": "text_file"}, r"prompts\.path"),
    ],
)
def test_a_wrong_name_or_option_says_what_there_is(key, options, said):
    with pytest.raises(ConfigError, match=said):
        build(key, options)


@pytest.fixture
def theirs(tmp_path):
    path = tmp_path / "theirs.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "def dark(images, prompts):\n    return -images.mean((1, 2, 3))\n"
        "@dataclass(frozen=True)\nclass Power:\n    power: float = 1.0\n"
        "    def __call__(self, images, prompts):\n        return images.mean((1, 2, 3)) ** self.power\n"
    )
    return path


def test_a_plain_function_from_anyones_file(theirs):
    reward = build("reward", {"name": f"{theirs}:dark"})
    assert reward(torch.ones(2, 3, 4, 4), [Prompt("a cat")] * 2).tolist() == [-1, -1]


def test_a_class_from_anyones_file_has_its_options_checked(theirs):
    assert build("reward", {"name": f"{theirs}:Power", "power": "2"}).power == 2.0
    with pytest.raises(ConfigError, match=r"reward\.powr.*Did you mean 'power'"):
        build("reward", {"name": f"{theirs}:Power", "powr": 2})
    with pytest.raises(ConfigError, match="has no 'drak'.*Did you mean 'dark'"):
        build("reward", {"name": f"{theirs}:drak"})


@pytest.mark.parametrize("content", ["def (", "nothing_like_it", "raise ValueError('no')"])
def test_a_file_that_cannot_be_imported(content, tmp_path):
    (tmp_path / "broken.py").write_text(content)
    with pytest.raises(ConfigError, match="cannot import"):
        build("reward", {"name": f"{tmp_path / 'broken.py'}:x"})


def test_a_completed_configuration_spells_out_every_option():
    config = tiny.config(reward={"name": "jpeg_compressibility"})
    whole = completed(config, assemble(config))
    assert whole.rewards == [
        {"name": "jpeg_compressibility", "quality": 95, "truncate": False, "weight": 1.0}
    ]
    assert whole.algorithm["advantage_clip"] == 5.0
    assert assemble(whole).algorithm == assemble(config).algorithm


@pytest.mark.parametrize(
    ("key", "name"), [(key, name) for key, room in KEYS.items() for name in names(room)]
)
def test_options_are_read_from_the_source_as_they_are(key, name):
    kind = find(key, name)
    assert list(declared_options(KEYS[key], name)) == [f.name for f in fields(kind) if f.init]


def beside(folder, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


USES = "from {0}_neighbour import shade\ndef dark(images, prompts):\n    import {0}_later\n    return -shade(images)\n"
SHADE = "def shade(images):\n    return images.mean((1, 2, 3))\n"


def test_a_reward_imports_the_modules_beside_its_file_then_and_later(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = beside(
        tmp_path / "mine", dark=USES.format("near"), near_neighbour=SHADE, near_later=""
    )
    monkeypatch.chdir(tmp_path)
    reward = build("reward", {"name": "mine/dark.py:dark"})
    assert reward(torch.ones(2, 3, 4, 4), [Prompt("a cat")] * 2).tolist() == [-1.0, -1.0]
    assert sys.path[-1] == str(folder)


@pytest.mark.parametrize("start", ["module", "command"])
def test_a_neighbour_takes_the_place_of_no_installed_module(start, tmp_path):
    """The command starts in the folder itself, where files are called as modules that Rediffuse imports."""
    shadows = [
        "random",
        "numpy",
        "yaml",
        "queue",
        "torch",
        "config",
        *(["rediffuse"] if start == "command" else []),
    ]
    texts = dict.fromkeys(shadows, "raise SystemExit('shadowed')")
    folder = beside(
        tmp_path / "mine", dark=USES.format("own"), own_neighbour=SHADE, own_later="", **texts
    )
    words = {
        "module": ["-m", "rediffuse"],
        "command": ["-P", "-c", "from rediffuse.cli import main; main()"],
    }[start]
    done = subprocess.run(
        [sys.executable, *words, "plan", "--reward", "dark.py:dark"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_a_file_changes_where_it_is_imported_changes_nothing_for_the_run(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import os, torch\nos.chdir('/')\ntorch.set_default_dtype(torch.float64)\ndef dark(images, prompts): return images\n"
    )
    build("reward", {"name": "mine.py:dark"})
    assert (os.getcwd(), torch.get_default_dtype()) == (str(tmp_path), torch.float32)
