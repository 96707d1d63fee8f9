import math
import re

import pytest
from matplotlib.figure import Figure

from rediffuse.report.charts import Chart, Line, in_page, sparkline, svg


@pytest.fixture
def chart():
    return Chart(
        [
            Line([0, 1, 2], [1.0, 2.0, 1.5], low=[0, 1, 1], high=[2, 3, 2]),
            Line([0, 2], [1, 1], tone=3),
        ],
        marks=[(1, "best")],
    )


def test_its_colours_are_the_pages(chart):
    code = svg(chart, "a")
    assert {"currentColor", "var(--rule)", "var(--series-0)", "var(--series-3)"} <= set(
        re.findall(r"currentColor|var\([^)]*\)", code)
    )
    assert not re.search(r"#[0-9a-f]{6}\b", code)


def test_two_in_a_page_share_no_id(chart):
    ids = [set(re.findall(r'\bid="([^"]*)"', svg(chart, prefix))) for prefix in ("a", "b")]
    assert ids[0] and not ids[0] & ids[1]
    for name in re.findall(r'(?:href="#|url\(#)([^")]*)', svg(chart, "a")):
        assert name in ids[0]


def test_it_is_the_same_each_time(chart):
    assert svg(chart, "a") == svg(chart, "a")


def test_it_names_no_address_and_no_style(chart):
    assert not re.search(r"http|<style|<metadata|<!--|font-family", svg(chart, "a"))


def test_words_are_no_formula_and_no_markup():
    def draw():
        figure = Figure()
        figure.subplots().set_title(r"$\frac{1}{0 <script> 🦉")
        return figure

    assert r"$\frac{1}{0 &lt;script&gt; 🦉" in in_page(draw, "a")


@pytest.mark.parametrize("values", [[], [math.nan], [1.0], [0.0, 0.0], [math.nan, 1.0, math.nan]])
def test_little_is_drawn_too(values):
    assert svg(Chart([Line(range(len(values)), values)]), "a").startswith("<svg")


def test_a_share_that_is_zero_has_no_axis_below_zero():
    assert "−" not in svg(Chart([Line([0, 1], [0.0, 0.0])]), "a")
    assert "−" in svg(Chart([Line([0, 1], [-1.0, 0.0])]), "a")


def test_a_sparkline_by_hand():
    assert 'points="2.0,26.0 60.0,2.0 118.0,14.0"' in sparkline([0.0, 2.0, 1.0])
    assert sparkline([1.0]) == sparkline([math.nan, 1.0]) == ""


def test_words_beside_a_mark_stay_in_the_drawing():
    line = Line([0, 100], [0.0, 1.0])
    code = svg(Chart([line], width=860, marks=[(0, "best"), (100, "over-optimised")]), "a")
    for word, anchor in (("best", "start"), ("over-optimised", "end")):
        assert re.search(rf"text-anchor: {anchor};[^>]*>{word}<", code)
    assert "best" not in svg(Chart([line], marks=[(0, "best")]), "a")
