"""Whoever writes prompts, answers, names or numbers into a run cannot make its page do anything."""

import json
from itertools import count, islice

import pytest
import yaml
from inert import troubles
from made_up import evaluation, grid, lines, look, metrics_row, reward_row, run, samples
from markupsafe import Markup

from rediffuse.report import charts, index, page
from rediffuse.report.markup import rendered
from rediffuse.runs.folder import RunFolder

ATTACKS = (
    "<script>window.pwned={i}</script>",
    "</script><script>window.pwned={i}</script>",
    "</style><script>window.pwned={i}</script>",
    "</title></textarea></noscript><img src=x onerror=window.pwned={i}>",
    "<img src=x onerror='window.pwned={i}'>",
    '" onmouseover="window.pwned={i}" autofocus onfocus="window.pwned={i}',
    "' onload='window.pwned={i}",
    "<svg onload=window.pwned={i}><animate onbegin=window.pwned={i} attributeName=x>",
    "<svg><script>window.pwned={i}</script></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.pwned={i}>",
    "javascript:window.pwned={i}//",
    "<a href='javascript:window.pwned={i}'>x</a>",
    "<iframe srcdoc='<script>parent.pwned={i}</script>'></iframe>",
    "<iframe src=https://example.com/{i}></iframe>",
    "<link rel=stylesheet href=//example.com/{i}.css>",
    "<base href=https://example.com/{i}/>",
    "<meta http-equiv=refresh content='0;url=https://example.com/{i}'>",
    "<form action=https://example.com/{i}><button autofocus>x",
    "{{{{ cycler.__init__.__globals__.os.popen('id {i}').read() }}}}",
    "{{% for x in range({i}) %}}x{{% endfor %}}",
    "${{window.pwned={i}}} #{{window.pwned={i}}} <%= window.pwned={i} %>",
    "&lt;script&gt;window.pwned={i}&lt;/script&gt;",
    "&#60;script&#62;window.pwned={i}&#x3c;/script>",
    "<scr\0ipt>window.pwned={i}</scr\0ipt>",
    "\u202e>tpircs/<{i}=denwp.wodniw>tpircs<",
    "\x1b[2J\x1b]0;pwned {i}\x07\x9b31m",
    "\u2066\u2067\u200f\u061c{i}\u2069\ufeff\u2028\u2029",
    "half \ud800 of {i} \udfff",
    "Z" + "\u0301\u0489" * 60 + "{i}",
    "\ufdfd" * 200 + "{i}",
    "x" * 3000 + "{i}",
    "expression(window.pwned={i}); background: url(https://example.com/{i})",
    "}} * {{ background: url(https://example.com/{i}.png) }}",
    "red;}}</style><script>window.pwned={i}</script>",
    "@import 'https://example.com/{i}.css';",
    "<!--<script>window.pwned={i}</script>",
    "-->]]><![CDATA[<script>window.pwned={i}</script>]]>",
    "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;{i}",
    "$\\frac{{{i}}}{{0}}$ \\$ $$",
    "<plaintext><xmp><listing>{i}",
    "</datalist></output></main></body></html><script>window.pwned={i}</script>",
    "data:text/html,<script>window.pwned={i}</script>",
    "＜script＞window.pwned={i}＜/script＞ ʺ ՚",
    "%3Cscript%3Ewindow.pwned={i}%3C/script%3E",
    "\\u003cscript\\u003ewindow.pwned={i}\\x3c/script>",
    "`;window.pwned={i};`",
    "'); window.pwned={i}; ('",
    "\r\nSet-Cookie: pwned={i}\r\n\r\n<script>window.pwned={i}</script>",
    "<input autofocus onfocus=window.pwned={i}><details open ontoggle=window.pwned={i}>",
    "<template shadowrootmode=open><script>window.pwned={i}</script></template>",
)
NUM_STRINGS = 1000
TOGETHER = 20


def hostile_strings():
    return list(islice((attack.format(i=i) for i in count() for attack in ATTACKS), NUM_STRINGS))


def hostile_run(path, strings):
    """Each of the strings in every place of a run's files that holds words."""
    run(path, epochs=2)
    first, second = strings[:2]
    parts = dict.fromkeys(strings, 1.0)
    notes = {text: text for text in strings}
    keys = {f"reward_{text}": 1.0 for text in strings} | {f"masked_{text}": 2 for text in strings}
    lines(path / "metrics.jsonl", [metrics_row(epoch, **keys) for epoch in range(2)])
    told = {"parts": parts, "status": first}
    lines(
        path / "rewards.jsonl",
        [reward_row(e, i, t, notes=notes, **told) for e in range(2) for i, t in enumerate(strings)],
    )
    judges = {text: {"values": [1.0, 2.0], "parts": {text: [0.0, 1.0]}} for text in strings}
    measured = {"statistics": dict.fromkeys(strings, 1.0), "held_out": judges}
    lines(path / "monitor.jsonl", [look(epoch, 2) | measured for epoch in range(3)])
    samples(path, range(3), strings, rows=1, side=2)
    findings = [
        {"rule": text, "level": text, "text": text, "numbers": {text: text}} for text in strings
    ]
    verdict = {
        "headline": " ".join(strings),
        "level": first,
        "suggestion": second,
        "best": second,
        "overoptimised_at": 1,
    }
    (path / "verdict.json").write_text(json.dumps({**verdict, "findings": findings}))
    evaluation(path / "evaluation", strings)
    suites = [
        {"name": t, "num_prompts": t, "grid": t, "prompts": [t], "rewards": {t: {"error": t}}}
        for t in strings
    ]
    suites += [
        {"name": t, "grid": "unseen.png", "prompts": strings, "rewards": {t: {"before": t}}}
        for t in strings[:2]
    ]
    (path / "evaluation/evaluation.json").write_text(
        json.dumps({"checkpoint": first, "suites": suites})
    )
    # config.yaml holds no half of a character
    whole = [text.encode("utf-8", "replace").decode() for text in strings]
    named = {
        kind: {"name": text, text: text}
        for kind, text in zip(("model", "reward", "algorithm", "prompts"), whole, strict=False)
    }
    hidden = {"mapping": dict.fromkeys(whole, "x")}
    safe = json.loads(json.dumps({**named, **hidden, "epochs": whole[0]}))
    (path / "config.yaml").write_text(yaml.safe_dump(safe), encoding="utf-8", errors="replace")
    return RunFolder(path)


def folder_name(text):
    return (
        text.replace("/", "∕")
        .replace("\0", "0")
        .encode("utf-8", "replace")[:120]
        .decode("utf-8", "ignore")
    )


def test_there_are_a_thousand_and_each_is_another():
    assert len(set(hostile_strings())) == NUM_STRINGS


def test_in_every_place_of_a_run(tmp_path, monkeypatch):
    """The charts are left out here: no word of a run is in them, as the next test shows."""
    monkeypatch.setattr(charts, "svg", lambda chart, prefix: Markup("<svg></svg>"))
    strings = hostile_strings()
    for start in range(0, NUM_STRINGS, TOGETHER):
        some = strings[start : start + TOGETHER]
        place = tmp_path / folder_name(some[start // TOGETHER % TOGETHER])
        text = page.write(hostile_run(place, some)).read_text(encoding="utf-8")
        assert troubles(text) == []
        assert not {"\x1b", "\0", "\u202e", "\x9b"} & set(text)
        assert text.count("window.pwned") > TOGETHER or "pwned" not in " ".join(some)


def test_no_word_of_a_run_is_in_a_chart(tmp_path):
    drawn = []
    for i, strings in enumerate((["one", "two"], ["<script>", "$x$"])):
        text = page.write(hostile_run(tmp_path / f"run-{i}", strings)).read_text()
        drawn.append(text.split("<svg")[1:])
        assert troubles(text) == []
    assert [piece.partition("</svg>")[0] for piece in drawn[0]] == [
        piece.partition("</svg>")[0] for piece in drawn[1]
    ]


def test_as_the_name_of_a_run():
    for name in hostile_strings():
        assert (
            troubles(
                rendered(
                    "waiting.html.jinja",
                    scripts=page.LIVE_SCRIPTS,
                    live=True,
                    name=name,
                    version="1",
                )
            )
            == []
        )


def test_in_the_page_over_many_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(charts, "svg", lambda chart, prefix: Markup("<svg></svg>"))
    for start in range(0, 3 * TOGETHER, TOGETHER):
        some = hostile_strings()[start : start + TOGETHER]
        hostile_run(tmp_path / folder_name(some[0]), some)
    assert troubles(index.write(tmp_path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "injected",
    [
        "<script>1</script>",
        "<img src=x onerror=1>",
        "<img src=https://example.com/x>",
        "<a href='javascript:1'>x</a>",
        "<a href='http://example.com'>x</a>",
        "<svg><script>1</script></svg>",
        "<svg><use href='https://example.com/#x'/></svg>",
        "<svg><a xlink:href='javascript:1'></a></svg>",
        "<svg onload=1></svg>",
        "<iframe></iframe>",
        "<form></form>",
        "<base href=/x>",
        "<meta http-equiv=refresh content=0>",
        "<style>@import 'x'</style>",
        "<style>p{background:url(https://example.com/x)}</style>",
        "<p style='background:url(x)'>",
        "<p style='background:\\75rl(x)'>",
    ],
)
def test_what_could_run_or_reach_out_would_be_seen(injected):
    text = rendered("waiting.html.jinja", scripts=page.SCRIPTS, name="run", version="1")
    assert troubles(text) == []
    assert troubles(text.replace("</main>", f"{injected}</main>"))


def test_another_script_or_policy_would_be_seen():
    text = rendered("waiting.html.jinja", scripts=page.SCRIPTS, name="run", version="1")
    assert troubles(text.replace('"use strict";', '"use strict"; 1;', 1))
    assert troubles(text.replace("default-src &#39;none&#39;", "default-src *"))
    assert troubles(text.replace("Content-Security-Policy", "X"))


def test_a_browser_runs_none_of_it(visit, tmp_path):
    """One of each kind."""
    place = hostile_run(tmp_path / "run", hostile_strings()[: len(ATTACKS)])
    with visit(page.write(place).as_uri(), width=390) as seen:
        seen.page.mouse.move(150, 400)
        seen.page.keyboard.press("Tab")
        assert not seen.ran() and seen.left == [] and seen.complaints == []
        assert seen.page.title().endswith("· Rediffuse")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_browser_that_runs_it_would_be_seen(visit, tmp_path):
    """The page without its policy and its escapes."""
    (tmp_path / "x.html").write_text(
        "<img src=x onerror=window.pwned=1><script>console.error('!')</script>"
    )
    with visit((tmp_path / "x.html").as_uri()) as seen:
        assert seen.ran() and seen.left and seen.complaints


def test_a_broken_name_does_not_stop_the_page(tmp_path):
    grid(tmp_path / "x.png", 1, 1)
    assert page.write(hostile_run(tmp_path / "\x1b[31m", ["\ud800", "\0"])).exists()
