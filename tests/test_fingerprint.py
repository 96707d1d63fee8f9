"""A run goes on from the model that it learned with, or says that it does not."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file, save_file

from rediffuse import resume, train
from rediffuse.errors import ConfigError
from rediffuse.evaluation.pictures import before_and_after

pytestmark = pytest.mark.usefixtures("without_charts")


@pytest.fixture(scope="module")
def trained(pipeline, tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    model = shutil.copytree(pipeline, place / "model")
    (place / "prompts.txt").write_text("a cat\na dog\n")
    options = {"name": "stable_diffusion", "source": str(model), "guidance_scale": 1.0}
    prompts = {"name": "text_file", "path": str(place / "prompts.txt")}
    train(tiny.config(epochs=1, model=options, prompts=prompts), place / "run")
    return place


@pytest.fixture
def run(trained, tmp_path):
    """A run whose model lies where it did."""
    copy = Path(shutil.copytree(trained, tmp_path / "place"))
    for name in ("config.yaml", "environment.json"):
        path = copy / "run" / name
        path.write_text(path.read_text().replace(str(trained), str(copy)))
    return copy / "run"


def change_weights(run):
    file = run.parent / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    changed = {name: 1.3 * value for name, value in load_file(file).items()}
    save_file(changed, file, metadata={"format": "pt"})


def test_base_weights_that_changed_are_refused_until_that_is_accepted(run):
    change_weights(run)
    with pytest.raises(
        ConfigError,
        match=r"model\.source: unet/diffusion_pytorch_model\.safetensors changed.*--accept-changed-files",
    ):
        resume(run, epochs=2)
    assert len(resume(run, epochs=2, accept_changed_files=True)) == 1
    assert len(resume(run, epochs=3)) == 1  # what was accepted is what the next one is held against


def test_pictures_of_a_model_that_changed_come_with_a_warning(run, recwarn):
    before_and_after(run, "a cat", 0)
    assert not [each for each in recwarn if "changed since" in str(each.message)]
    change_weights(run)
    with pytest.warns(
        UserWarning,
        match=r"model\.source: unet/diffusion_pytorch_model\.safetensors changed since the run began",
    ):
        before_and_after(run, "a cat", 0)


def test_prompts_that_changed_are_refused_too(run):
    (run / "prompts" / "prompts.txt").write_text("a cat\na cow\n")
    with pytest.raises(ConfigError, match=r"prompts\.path: prompts\.txt changed"):
        resume(run, epochs=2)


def test_a_run_whose_files_are_what_they_were_goes_on(run):
    """The control of the tests above."""
    assert len(resume(run, epochs=2)) == 1


def test_a_run_of_an_older_version_goes_on(run):
    place = run / "environment.json"
    known = json.loads(place.read_text())
    assert known["files"].keys() == {"model.source", "prompts.path"}
    place.write_text(json.dumps({key: value for key, value in known.items() if key != "files"}))
    assert len(resume(run, epochs=2)) == 1
