"""What is left of a run that fails before its first epoch is done."""

import pytest
import tiny

from rediffuse import train
from rediffuse.errors import RewardError
from rediffuse.evaluation.pictures import Pictures

pytestmark = pytest.mark.usefixtures("without_charts")


def test_a_run_that_fails_in_its_first_look_leaves_no_folder_in_the_way(tmp_path, monkeypatch):
    def broken(self, folder, made):
        raise ValueError("a shape that does not fit")

    with monkeypatch.context() as patch:
        patch.setattr(Pictures, "save", broken)
        with pytest.raises(ValueError, match="does not fit"):
            train(tiny.config(epochs=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert len(train(tiny.config(epochs=1), tmp_path / "run")) == 1


def test_one_whose_reward_fails_keeps_its_state(tmp_path):
    """The control of the test above."""

    def failing(images, prompts):
        raise RuntimeError("no answer")

    with pytest.raises(RewardError):
        train(tiny.config(epochs=1), tmp_path / "run", failing)
    assert (tmp_path / "run" / "checkpoints" / "epoch-00000").is_dir()
