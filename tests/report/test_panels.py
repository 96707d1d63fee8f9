import math

import pytest

from rediffuse.report import panels
from rediffuse.report.panels import Drawing

METRICS = [
    {"epoch": e, "reward_mean": 1.0, "reward_mine": 1.0, "reward_right": 0.5 + e} for e in range(3)
]


def judged(epoch, right):
    return {"epoch": epoch, "reward": 1.0, "parts": {"right": right}}


def test_the_spread_of_a_part_is_that_of_its_samples():
    rows = [
        judged(0, 0.0),
        judged(0, 1.0),
        judged(0, None),
        judged(0, math.nan),
        judged(1, 3.0),
        {"epoch": 1, "reward": 2.0},
    ]
    assert panels._spreads(rows) == {"right": {0: pytest.approx(0.5), 1: 0.0}}


def test_a_part_is_drawn_with_its_spread_where_that_is_known():
    rows = [judged(epoch, value) for epoch in range(3) for value in (0.0, 1.0)]
    (with_band,) = panels.components(METRICS, rows, {"reward": {"name": "mine"}}, Drawing([]))
    (without,) = panels.components(METRICS, [], {"reward": {"name": "mine"}}, Drawing([]))
    assert with_band.title == without.title == "right"
    assert "opacity: 0.16" in with_band.chart and "opacity: 0.16" not in without.chart
