import math

import pytest

from rediffuse.report.markup import duration, fixed, number, policy, rendered, short, shown, signed


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a cat", "a cat"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("nul\0", "nul\\x00"),
        ("\u202egnp.tac", "\\u202egnp.tac"),
        ("half \ud800", "half \\ud800"),
        ("tag \U000e0041", "tag \\U000e0041"),
        ("e\u0301\u0323" + "\u0301" * 4, "e\u0301\u0323\u0301\u0301" + "\\u0301" * 2),
        ("two\nlines", "two\nlines"),
        ("👩\u200d🚀 قطة кошка", "👩\u200d🚀 قطة кошка"),
    ],
)
def test_what_is_invisible_is_shown(text, seen):
    assert shown(text) == seen


def test_numbers_as_one_reads_them():
    assert [number(value) for value in (2.81234, -0.33, 1234567, 3, 0.0)] == [
        "2.81",
        "−0.330",
        "1,234,567",
        "3",
        "0",
    ]
    assert [number(value) for value in (None, math.nan, math.inf, "1", True)] == ["–"] * 5
    assert (signed(1.5), signed(-1.5), signed(None)) == ("+1.50", "−1.50", "–")
    assert (fixed(-1.234, 1), fixed(1.234, 2, "+"), fixed(math.nan, 2)) == ("−1.2", "+1.23", "–")
    assert [duration(seconds) for seconds in (7.4, 125, 7500)] == ["7 s", "2 min 5 s", "2 h 5 min"]
    assert len(short("x" * 999)) == 240


def test_only_the_script_that_is_named_may_run():
    assert "script-src" not in policy("")
    assert policy("a") != policy(
        "b"
    ) and "'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='" in policy("a")
    assert "connect-src" not in policy("a") and "connect-src 'self'" in policy("a", live=True)


def test_a_template_escapes_all_that_it_is_given():
    text = rendered("waiting.html.jinja", name="<b>\x1b</b>", version="\"'")
    assert "&lt;b&gt;\\x1b&lt;/b&gt;" in text and 'data-version="&#34;&#39;"' in text
