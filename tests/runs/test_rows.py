"""What is declared in runs/rows.py is what a run writes, and what its readers ask for."""

import re
from pathlib import Path
from typing import get_args

import pytest
import tiny
from typeguard import TypeCheckError, check_type

from rediffuse import faults, train
from rediffuse.errors import Status
from rediffuse.report import diagnostics, panels, tables
from rediffuse.runs import rows
from rediffuse.runs.folder import RunFolder
from rediffuse.verdict import rules

pytestmark = pytest.mark.usefixtures("without_charts")

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "rediffuse"
METRICS, STATISTICS = (set(kind.__annotations__) for kind in (rows.MetricsRow, rows.Statistics))
MISSING = {*rows.MaskedColumns.__annotations__, *rows.BrokenColumns.__annotations__}
"""Columns of samples without a reward, which a row has only if there are any."""
RUNS = {
    "plain": {"evaluation": {"held_out": "jpeg_compressibility"}},
    "sum": {
        "epochs": 1,
        "rewards": [
            {"name": "redness"},
            {"name": "jpeg_compressibility", "weight": 0.5},
            {"name": f"{tiny.FILE}:redness_2", "weight": 0, "share": 0.5},
        ],
        "algorithm": {"kl_weight": 0.1},
    },
    "broken": {
        "epochs": 1,
        "model": {"name": f"{tiny.FILE}:Sick", "place": "decoder", "above": 0.0},
        "scoring": {"max_failed": 0.9},
        "evaluation": {"images_per_prompt": 4},
    },
}
OPEN = {
    "plain": {"reward_redness"},
    "sum": {
        "reward_redness",
        "reward_jpeg_compressibility",
        "reward_redness_2",
        "kl_to_pretrained",
    },
    "broken": {"reward_redness"},
}
"""The columns of each run that depend on its rewards and its algorithm."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, over in RUNS.items():
        train(tiny.config(**over), folder / name)
    return {name: RunFolder(folder / name) for name in RUNS}


def without(row, columns):
    return {key: value for key, value in row.items() if key not in columns}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_writes_the_declared_columns_in_their_types(runs, name):
    run = runs[name]
    metrics = rows.read_metrics(run)
    assert metrics
    assert all(OPEN[name] <= row.keys() for row in metrics)
    for row in metrics:
        check_type(without(row, OPEN[name]), rows.MetricsRow)
    for row in rows.read_rewards(run):
        check_type(row, rows.RewardsRow)
    for row in rows.read_monitor(run):
        check_type(row, rows.MonitorRow)


def test_an_undeclared_column_or_another_type_would_be_seen(runs):
    (row, *_), (sample, *_) = rows.read_metrics(runs["plain"]), rows.read_rewards(runs["plain"])
    declared = without(row, OPEN["plain"])
    check_type(declared, rows.MetricsRow)
    for wrong in (row, declared | {"los": 1.0}, declared | {"loss": "1"}, without(row, {"epoch"})):
        with pytest.raises(TypeCheckError):
            check_type(wrong, rows.MetricsRow)
    with pytest.raises(TypeCheckError):
        check_type({**sample, "status": "fine"}, rows.RewardsRow)


def test_a_run_has_every_declared_column_unless_it_says_when_it_is_missing(runs):
    metrics = rows.read_metrics(runs["plain"])
    assert all(
        row.keys() - OPEN["plain"] == METRICS - MISSING - {"relative_reward"} for row in metrics
    )
    summed = rows.read_metrics(runs["sum"])[0].keys() - OPEN["sum"]
    assert summed == METRICS - MISSING
    lost = set().union(*rows.read_metrics(runs["broken"])) & MISSING
    assert lost == {"masked_broken_sample", "broken_decoder"}
    samples = rows.read_rewards(runs["sum"])
    assert set().union(*samples) == set(rows.RewardsRow.__annotations__) - {"notes"}
    looks, broken = rows.read_monitor(runs["plain"]), rows.read_monitor(runs["broken"])
    assert looks[0].keys() == set(rows.MonitorRow.__annotations__) - {"broken"}
    assert set().union(*broken) == set(rows.MonitorRow.__annotations__)
    (first,), (later,) = (look["held_out"].values() for look in looks[:2])
    assert first.keys() == set(rows.HeldOut.__annotations__)
    assert first.keys() - later.keys() == {"of_other_prompts"}
    assert looks[0]["statistics"].keys() == STATISTICS


def test_every_status_and_every_place_has_its_column():
    assert set(rows.MaskedColumns.__annotations__) == {
        f"masked_{status}" for status in get_args(Status) if status != "ok"
    }
    assert set(rows.BrokenColumns.__annotations__) == set(
        map(faults.metric, get_args(faults.Place))
    )


def documented(kind):
    return re.findall(r"^        (\w+): ", kind.__doc__, re.MULTILINE)


def test_every_column_is_described():
    parts = (rows.MaskedColumns, rows.BrokenColumns, rows.RewardColumns, rows.UpdateColumns)
    assert sorted(
        name for kind in (*parts, rows.MetricsRow) for name in documented(kind)
    ) == sorted(METRICS)
    for kind in (rows.RewardsRow, rows.MonitorRow, rows.HeldOut, rows.Statistics):
        assert documented(kind) == list(kind.__annotations__)


def test_readers_ask_for_declared_columns():
    """Those that they name in tables and templates, which types do not check."""
    named = {*diagnostics.DIAGNOSTICS, *diagnostics.SECONDS, *panels.OWN, *tables.PHASES}
    page = (SOURCE / "report/page.html.jinja").read_text()
    of_epochs = page.split("{% for row in told.metrics %}")[1].split("{% endfor %}")[0]
    card = (SOURCE / "runs/model_card.md.jinja").read_text()
    in_templates = [
        *re.findall(r"row\.(\w+)", of_epochs),
        *re.findall(r"metrics\[-?\d\]\.(\w+)", card),
    ]
    assert len(in_templates) == 10
    assert named | set(in_templates) <= METRICS
    assert set(diagnostics.STATISTICS) == STATISTICS >= rules.CHANGES.keys()


def test_the_table_of_statistics_in_the_docs_names_all_of_them():
    table = (ROOT / "docs/verdict.md").read_text().split("| | |\n|---|---|\n")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()]
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(STATISTICS)
