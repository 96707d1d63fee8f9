"""Samples that are shown in their scene: by the prompt set, wherever a sample is shown."""

import shutil

import pytest
import tiny
import torch
from PIL import Image as Pil

from rediffuse.cli import run as command
from rediffuse.errors import ConfigError
from rediffuse.evaluation.previews import View, scene_of
from rediffuse.evaluation.suites import Question, evaluate
from rediffuse.images import read
from rediffuse.modalities.image import Image
from rediffuse.modalities.vector import Vector
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder
from rediffuse.start import resume, train
from rediffuse.types import Prompt, Renders

SIDE = tiny.Goals().side
PROMPTS = [Prompt(inputs={"label": i % 2}) for i in range(3)]
SAMPLES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [torch.nan, 0.0]])


def config(prompts="Goals", **over):
    usual = {
        "model": {"name": f"{tiny.FILE}:OfVectors"},
        "prompts": {"name": f"{tiny.FILE}:{prompts}"},
        "reward": {"name": f"{tiny.FILE}:first"},
        "evaluation": {"every": 1, "num_prompts": 2, "images_per_prompt": 2},
    }
    return tiny.config(**{**usual, **over})


def test_a_prompt_set_that_renders_is_asked_and_others_are_not():
    assert isinstance(tiny.Goals(), Renders) and not isinstance(tiny.Labels(), Renders)
    shown = View(Vector(), tiny.Goals()).preview(SAMPLES, PROMPTS)
    assert shown.shape == (3, 3, SIDE, SIDE)
    assert shown[0, :, -1, -1].tolist() == [0, 1, 0] and shown[1, :, -1, -1].tolist() == [1, 0, 0]
    assert (shown[0, :, 0, 0] == 1).all() and (shown[1, :, SIDE // 2, 0] == 1).all()
    for prompts in (None, tiny.Labels()):
        plain = View(Vector(), prompts).preview(SAMPLES, PROMPTS)
        assert torch.equal(plain.nan_to_num(), Vector().preview(SAMPLES).nan_to_num())


def test_samples_that_are_not_finite_are_nan_and_are_not_drawn():
    shown = View(Vector(), tiny.Goals()).preview(SAMPLES, PROMPTS)
    assert shown[2].isnan().all() and shown[:2].isfinite().all()
    assert View(Vector(), tiny.Goals()).preview(SAMPLES[2:], PROMPTS[2:]).isnan().all()


@pytest.mark.parametrize(
    ("gives", "said"),
    [(torch.zeros(2, 4, 4), r"shape \(2, 4, 4\)"), (torch.zeros(1, 3, 4, 4), "2 samples"), (None, "NoneType")],
)  # fmt: skip
def test_what_is_no_images_is_refused(gives, said):
    class Wrong(tiny.Goals):
        def render(self, samples, prompts):
            return gives

    with pytest.raises(ConfigError, match=rf"prompts\.name: render gave .*{said}"):
        View(Vector(), Wrong()).preview(SAMPLES[:2], PROMPTS[:2])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("scenes")
    train(config(epochs=2), place / "run")
    return place / "run"


def ground(image):
    """The colour of each column's lower right corner, in tiles of a scene."""
    return [image.getpixel((x + SIDE - 1, SIDE - 1)) for x in range(0, image.width, SIDE)]


def test_grids_and_single_pictures_are_those_of_the_scene(run):
    samples = run / "samples" / "epoch-00002"
    with Pil.open(samples / "grid.png") as grid:
        assert grid.size == (2 * SIDE, 2 * SIDE)
        assert ground(grid) == [(0, 255, 0), (255, 0, 0)]
    assert read(samples / "000.png").shape == (3, SIDE, SIDE)
    assert len(list(samples.glob("*.json"))) == 4


def test_statistics_are_those_of_the_scene_also_after_a_stop(run, tmp_path):
    """A scene of one bright colour is saturated, and a bar of a vector is not."""
    rows = log.read(RunFolder(run).monitor)
    assert all(row["statistics"]["saturation"] > 0.9 for row in rows)
    train(config(epochs=1, prompts="Labels"), tmp_path / "plain")
    plain = log.read(RunFolder(tmp_path / "plain").monitor)
    assert all(row["statistics"]["saturation"] < 0.5 for row in plain)
    train(config(epochs=1), tmp_path / "run")
    resume(tmp_path / "run", epochs=2)
    again = log.read(RunFolder(tmp_path / "run").monitor)
    assert [row["statistics"] for row in again] == [row["statistics"] for row in rows]


def test_suites_show_the_scene(run):
    evaluate(run, Question(suites=("own",), num_prompts=2, images_per_prompt=1))
    with Pil.open(run / "evaluation" / "suite-1.png") as grid:
        assert grid.size == (2 * SIDE, 2 * SIDE)
        assert ground(grid) == [(0, 255, 0), (255, 0, 0)]


def test_the_page_is_made_of_these_pictures(run):
    command(["report", str(run)])
    assert "data:image/webp" in (run / "report.html").read_text()


def test_before_and_after_are_shown_in_the_scene_where_its_code_is_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(config("GoalsOfWords", model={"name": f"{tiny.FILE}:Toy"}, epochs=1), "run")
    words = ["sample", "run", "--prompt", "a cat", "--out"]
    command([*words, "in-scene.png", "--trust-code"])
    assert Pil.open("in-scene.png").size == (12, 6)
    shutil.copytree("run", "a-strangers")
    words[1] = "a-strangers"
    config_file = tmp_path / "a-strangers" / "config.yaml"
    config_file.write_text(config_file.read_text().replace(f"{tiny.FILE}:Toy", "emoji"))
    assert scene_of(RunFolder(tmp_path / "a-strangers"), trusted=False) is None
    assert scene_of(RunFolder(tmp_path / "a-strangers"), trusted=True) is not None
    gone = config_file.read_text().replace(f"{tiny.FILE}:Goals", f"{tmp_path}/gone.py:Goals")
    config_file.write_text(gone)
    assert scene_of(RunFolder(tmp_path / "a-strangers"), trusted=True) is None


def test_an_image_that_is_shown_in_a_scene_is_kept_beside_it(tmp_path):
    model = {"name": f"{tiny.FILE}:Toy"}
    train(config("GoalsOfWords", model=model, epochs=1), tmp_path / "run")
    samples = tmp_path / "run" / "samples" / "epoch-00001"
    assert read(samples / "000.png").shape == (3, 6, 6)
    assert read(samples / "sample-000.png").shape == (3, 4, 4)
    assert len(list(samples.glob("[0-9]*.png"))) == 4
    resume(tmp_path / "run", epochs=2)
    assert View(Image(), tiny.Few()).is_sample and not View(Image(), tiny.GoalsOfWords()).is_sample
