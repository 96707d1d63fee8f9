import csv
import io
import shutil
from dataclasses import replace

import pytest
import tiny
from inert import troubles
from rich.console import Console

from rediffuse import train
from rediffuse.errors import RunError
from rediffuse.report import compare, comparison_page


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of one method, one of another."""
    folder = tmp_path_factory.mktemp("runs")
    sf = {"algorithm": {"name": "ddpo_sf", "advantage": "batch"}, "updates_per_epoch": 1}
    plans = {
        "is_0": {"seed": 0},
        "is_1": {"seed": 1},
        "sf_0": sf,
        "twice": {"prompts": {"name": f"{tiny.FILE}:Few"}},
    }
    for name, over in plans.items():
        train(tiny.config(epochs=3, **over), folder / name)
    return folder


def test_runs_that_differ_in_their_seed_alone_are_one_method(runs, tmp_path):
    page = comparison_page.write(
        compare.compared([runs / "is_0", runs / "is_1", runs / "sf_0"]), tmp_path / "out"
    )
    text = page.read_text()
    assert "2 methods, 3 runs" in text
    assert text.count("data:image/png") == 3  # before, and after by each method
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "out" / "compare.svg").read_bytes()
    with (tmp_path / "out" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert [int(row["reward_queries"]) for row in rows[:3]] == [0, 8, 16]
    assert {row["method"] for row in rows} == {"ddpo_is", "ddpo_sf"}


def metrics(*rewards):
    return [
        {
            "reward_queries": 8 * (i + 1),
            "reward_mean": reward,
            "seconds_sampling": 1.0,
            "seconds_training": 2.0,
        }
        for i, reward in enumerate(rewards)
    ]


def test_the_table_by_hand():
    config = tiny.config()
    method = compare.Method(
        "a",
        [
            compare.ComparedRun(None, config, metrics(0.0, 1.0, 2.0, 9.0)),
            compare.ComparedRun(None, config, metrics(0.0, 3.0, 6.0)),
        ],
    )
    assert method.curve() == [(0, 0.0, 0.0, 0.0), (8, 2.0, 1.0, 3.0), (16, 4.0, 2.0, 6.0)]
    standing = compare._standing(method, reach=2.0)
    assert (standing.final, standing.least, standing.most, standing.best) == (4.0, 2.0, 6.0, 4.0)
    assert (standing.queries, standing.queries_to_reach, standing.seconds) == (16, 8, 10.5)
    assert compare._standing(method, reach=5.0).queries_to_reach is None


def test_the_table_for_a_terminal(runs):
    """A run that is named twice counts once."""
    comparison = compare.compared(
        [runs / "is_0", runs / "sf_0", runs / "is_1", runs / "is_0"], reach=99.0
    )
    text = io.StringIO()
    Console(file=text, width=80).print(comparison.table())
    head, *rows = [line.split() for line in text.getvalue().splitlines()]
    assert head[-5:] == ["to", "99.000", "s", "a", "run"]
    assert {row[0]: row[-3:-1] for row in rows} == {
        "ddpo_is": ["16", "never"],
        "ddpo_sf": ["16", "never"],
    }
    assert [len(run.folder.path.name) for run in comparison.runs] == [4, 4, 4]


def test_methods_of_one_algorithm_are_told_apart_by_what_differs(runs, tmp_path):
    shutil.copytree(runs / "is_0", tmp_path / "hot")
    path = tmp_path / "hot" / "config.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.003", "learning_rate: 0.03"))
    labels = [
        method.label
        for method in compare.grouped(
            [compare._read(each) for each in (runs / "is_0", tmp_path / "hot")]
        )
    ]
    assert labels == ["ddpo_is, learning_rate 0.003", "ddpo_is, learning_rate 0.03"]


def test_runs_of_other_prompts_cannot_be_compared(runs, tmp_path):
    with pytest.raises(RunError, match=r"cannot be compared: prompts.* Compare runs of one task"):
        comparison_page.write(compare.compared([runs / "is_0", runs / "twice"]), tmp_path)


@pytest.mark.parametrize(
    "key", ["rewards:\n- name: redness", "sampler:\n  name: ddim\n  num_steps: 4"]
)
def test_nor_those_of_another_task(key, runs, tmp_path):
    shutil.copytree(runs / "is_0", tmp_path / "other")
    path = tmp_path / "other" / "config.yaml"
    assert key in path.read_text()
    path.write_text(
        path.read_text().replace(
            key, key.replace("redness", "jpeg_compressibility").replace(": 4", ": 5")
        )
    )
    with pytest.raises(RunError, match=f"cannot be compared: {key.split(':')[0]}"):
        comparison_page.write(
            compare.compared([runs / "is_0", tmp_path / "other"]), tmp_path / "out"
        )


def test_rewards_that_are_measured_within_their_epoch_cannot_be_compared(tmp_path):
    train(
        tiny.config(rewards=["redness", "jpeg_compressibility"]),
        tmp_path / "run",
    )
    with pytest.raises(RunError, match="normalised over each epoch"):
        compare.compared([tmp_path / "run"])


def test_a_file_is_no_place_for_a_comparison(runs, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RunError, match="out is a file; name a folder"):
        comparison_page.write(compare.compared([runs / "is_0"]), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_what_is_not_a_run_or_has_no_epoch(runs, tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        comparison_page.write(compare.compared([tmp_path]), tmp_path)
    shutil.copytree(runs / "is_0", tmp_path / "new")
    (tmp_path / "new" / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match="no finished epoch"):
        comparison_page.write(compare.compared([runs / "is_0", tmp_path / "new"]), tmp_path / "out")


def test_without_the_same_pictures_there_is_no_row_of_them(runs, tmp_path):
    shutil.copytree(runs / "sf_0", tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "samples")
    text = comparison_page.write(
        compare.compared([runs / "is_0", tmp_path / "bare"]), tmp_path / "out"
    ).read_text()
    assert "data:image/png" not in text
    assert "The same prompts" not in text


def test_hostile_names_are_inert(runs, tmp_path):
    """In its words, and in its chart's."""
    hostile = "\x1b\0</text></svg><script>1</script>$\\frac{1$"
    comparison = compare.compared([runs / "is_0", runs / "sf_0"])
    named = [compare.Method(hostile, method.runs) for method in comparison.methods]
    standings = [replace(standing, label=hostile) for standing in comparison.standings]
    text = comparison_page.write(
        replace(comparison, methods=named, standings=standings), tmp_path / "out"
    ).read_text()
    assert troubles(text) == [] and not {"\x1b", "\0"} & set(text)
    # in the legend, the table, over the pictures and as their names
    assert text.count("frac{1$") == 2 + 2 + 4
