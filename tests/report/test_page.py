import errno
import json
import os
import shutil
import time
from pathlib import Path

import made_up
import pytest
import tiny
import yaml
from inert import troubles

from rediffuse import train
from rediffuse.cli import main
from rediffuse.errors import RunError
from rediffuse.report import page, pictures
from rediffuse.runs.folder import RunFolder

LARGEST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made_up.run(tmp_path_factory.mktemp("runs") / "whole", epochs=8)


@pytest.fixture
def run(whole, tmp_path):
    """A copy that a test may change."""
    return RunFolder(shutil.copytree(whole, tmp_path / "whole"))


def text_of(run):
    return page.write(run).read_text(encoding="utf-8")


def test_the_page_of_a_training(tmp_path):
    """From the files as a training leaves them."""
    train(tiny.config(), tmp_path / "run")
    text = text_of(RunFolder(tmp_path / "run"))
    assert troubles(text) == []
    for said in (
        "redness",
        "ddpo_is",
        "<dt>reward queries</dt><dd>16</dd>",
        "config.yaml",
        "Before and after",
        "Diagnostics",
    ):
        assert said in text


def test_the_verdict_comes_first(run):
    text = text_of(run)
    order = [
        "<h1>",
        "It learned, then went too far.",
        "It learned.",
        "Stop earlier.",
        'class="figures"',
        'id="reward"',
        'id="slider"',
    ]
    order += [
        f'id="{name}"'
        for name in ("before-after", "generalisation", "prompts", "diagnostics", "again")
    ]
    places = [text.index(said) for said in order]
    assert places == sorted(places)
    assert text.index("rediffuse train whole/config.yaml --run-dir whole-again") < text.index(
        "ddpo_is\n"
    )


def test_without_a_verdict_plain_words_stand_in_its_place(run):
    (run.path / "verdict.json").unlink()
    assert "The mean reward rose from 0 to 2.65 in 8 epochs." in text_of(run)
    (run.path / "verdict.json").write_text('{"headline": ')
    assert "The mean reward rose" in text_of(run)


def test_what_is_missing_leaves_its_section_out(run):
    bare = {
        "rewards.jsonl": 'id="prompts"',
        "monitor.jsonl": "Held-out rewards",
        "evaluation": 'id="generalisation"',
        "samples": 'id="slider"',
    }
    for name, section in bare.items():
        assert section in text_of(run)
        path = run.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert section not in text_of(run)
    (run.path / "verdict.json").unlink()
    made_up.lines(run.metrics, [{"epoch": 0, "reward_mean": 1.0, "reward_std": 0.5}])
    text = text_of(run)
    assert 'id="diagnostics"' not in text and "One epoch is done; its mean reward is 1." in text
    assert troubles(text) == []


def test_a_run_without_an_epoch_is_told_so(tmp_path):
    with pytest.raises(RunError, match="no finished epoch"):
        page.write(RunFolder(tmp_path))


def test_the_slider_says_what_each_stage_is(run):
    told = page.read(run)
    captions = page.captions(page.slider_frames(told), told)
    assert captions[0].startswith("before training · emoji_judge 0")
    assert captions[4] == "after 4 epochs · emoji_judge 0.500 · best"
    assert captions[7].endswith("over-optimised from here")
    del (sparse := page.slider_frames(told))[4]
    assert page.captions(sparse, told)[4].endswith("best: epoch 4")


def test_without_a_look_the_training_reward_stands_there(run):
    (run.path / "monitor.jsonl").unlink()
    told = page.read(run)
    assert (
        page.captions(page.slider_frames(told), told)[4]
        == "after 4 epochs · training reward 2 · best"
    )


def test_what_the_verdict_marks_has_its_frame(run, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_FRAMES", 3)
    told = page.read(run)
    assert [frame.epoch for frame in page.slider_frames(told)] == [0, 4, 7, 8]
    assert page._on_the_slider(page.slider_frames(told), told) == [
        (1 / 3, "best"),
        (2 / 3, "over-optimised from here"),
    ]


def test_a_part_of_the_reward_has_a_panel(run):
    assert "Parts of the reward" in text_of(run)
    rows = [
        {key: value for key, value in row.items() if key != "reward_right"}
        for row in page.read(run).metrics
    ]
    made_up.lines(run.metrics, rows)
    assert "Parts of the reward" not in text_of(run)


def test_a_watched_reward_has_its_panels(run):
    assert "Watched rewards" not in text_of(run)
    rows = [row | {"parts": {"judge": -row["reward"]}} for row in page.read(run).rewards]
    made_up.lines(run.rewards, rows)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    judge = {"name": "judge", "weight": 0, "share": 0.5}
    config["rewards"] = [config.pop("reward"), judge]
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    assert "Watched rewards" in text_of(run)


def test_the_generalisation(run):
    text = text_of(run)
    for said in (
        "none of the prompts was trained on",
        "+1.39",
        "+1.20 to +1.50",
        "not scored: why not",
    ):
        assert said in text


def test_what_was_zero_all_along_is_said_in_words(run):
    assert "so not shown: Ratio drift, Missing rewards, Skipped updates." in text_of(run)


def test_numbers_that_are_none_do_not_stop_it(run):
    rows = [
        made_up.metrics_row(
            e, reward_mean=float("nan"), reward_std=None, grad_norm="x", approx_kl=float("inf")
        )
        for e in range(3)
    ]
    made_up.lines(run.metrics, rows)
    assert "– → –" in text_of(run)


def test_the_same_files_give_the_same_page(run):
    assert text_of(run) == text_of(run)


def test_two_hundred_epochs_stay_small_and_quick(tmp_path):
    prompts = [f"a picture of number {i}" for i in range(12)]
    run = RunFolder(made_up.run(tmp_path / "long", epochs=200, prompts=prompts, side=64))
    rows = [
        made_up.reward_row(epoch, i, prompts[i % 12]) for epoch in range(200) for i in range(180)
    ]
    made_up.lines(run.rewards, rows)
    page.write(run)
    start = time.perf_counter()
    assert page.write(run).stat().st_size < LARGEST_BYTES
    assert time.perf_counter() - start < 15  # about 1.3 s with a core of its own
    assert len(page.slider_frames(page.read(run))) <= pictures.MOST_FRAMES + 3


def test_the_largest_pictures_keep_a_page_under_its_limit():
    frames = (pictures.MOST_FRAMES + 3) * pictures.MOST_BYTES * 4 / 3
    assert frames < LARGEST_BYTES - 1_000_000


def test_half_a_page_is_never_seen(run, monkeypatch):
    before = text_of(run)
    monkeypatch.setattr(page, "render", lambda told: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page.write(run)
    assert run.report.read_text() == before and json.loads((run.path / "verdict.json").read_text())


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def reported(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["report", *map(str, arguments)])
    return stop.value.code


def test_a_page_can_be_written_elsewhere_and_the_run_stays_as_it_is(tmp_path):
    folder = made_up.run(tmp_path / "run", epochs=3)
    before = contents(folder)
    assert reported(folder, "--out", tmp_path / "there" / "page.html") == 0
    assert "The run is too short to judge." in (tmp_path / "there" / "page.html").read_text()
    assert contents(folder) == before
    assert reported(folder) == 0 and contents(folder) != before  # the control


def test_a_read_only_run_says_how_its_page_can_be_had(tmp_path, monkeypatch, capsys):
    folder, open_ = made_up.run(tmp_path / "a run", epochs=3), os.open

    def read_only(path, flags, *rest, **more):
        if flags & os.O_CREAT and folder in Path(path).parents:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return open_(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    assert reported(folder) == 2
    assert f"rediffuse report '{folder}' --out report.html" in " ".join(
        capsys.readouterr().err.split()
    )
    assert reported(folder, "--out", tmp_path / "page.html") == 0


def test_out_is_a_file(tmp_path, capsys):
    folder = made_up.run(tmp_path / "run", epochs=3)
    assert reported(folder, "--out", tmp_path) == 2
    assert "name a file in it" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "config.yaml", "samples/epoch-00000/grid.png", "samples"]
)
def test_what_a_link_leads_to_is_not_shown(name, tmp_path):
    folder = made_up.run(tmp_path / "run", epochs=3)
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is a link"):
        page.write(RunFolder(folder))


def test_of_a_normalised_sum_the_page_shows_its_terms(tmp_path):
    """Its own mean is 0 in every epoch."""
    import tiny

    from rediffuse import train

    train(
        tiny.config(rewards=["redness", {"name": "jpeg_compressibility", "weight": 0.5}], epochs=2),
        tmp_path / "run",
    )
    run = RunFolder(tmp_path / "run")
    text = text_of(run)
    assert "mean redness, first and last epoch" in text
    assert "Its weight in the normalised sum that is trained on is 0.5." in text
    assert "Reward in training" not in text and "Parts of the reward" not in text
    row = page.read(run).metrics[0]
    assert page.read(run).main_column == "reward_redness" and "reward_redness" in row
