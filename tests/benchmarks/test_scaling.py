import json

import pytest

from benchmarks import scaling


def test_the_exponent_of_a_power_is_its_own():
    sizes = [10, 20, 40, 80]
    assert scaling.exponent(sizes, [3 * n**1.7 for n in sizes]) == pytest.approx(1.7)
    assert scaling.exponent(sizes, [5.0] * 4) == pytest.approx(0)


def test_the_table_asks_for_the_reason_of_an_exponent_over_the_limit():
    row = {"sizes": [1, 2], "cpu_seconds": [1.0, 4.0], "reason": ""}
    text = scaling.table({"a": {**row, "exponent": 1.2}, "b": {**row, "exponent": 1.0}})
    first, second = text.split("\n")
    assert first.endswith("no reason is known")
    assert "reason" not in second
    named = scaling.table({"a": {**row, "exponent": 2.0, "reason": "attention"}})
    assert named.endswith("attention")


def test_every_size_has_at_least_three_values():
    assert {"images", "steps", "pixels", "rank", "prompts", "epochs", "looks", "processes"} == set(
        scaling.AXES
    )
    assert all(len(axis.sizes) >= 3 for axis in scaling.AXES.values())


def test_the_file_keeps_the_other_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "RESULTS", tmp_path / "results" / "scaling.json")
    scaling.update("images", {"exponent": 1.0})
    scaling.update("steps", {"exponent": 0.9})
    written = json.loads(scaling.RESULTS.read_text())
    assert written["exponents"] == {"images": {"exponent": 1.0}, "steps": {"exponent": 0.9}}
    assert written["machine"]["cores"] >= 1
