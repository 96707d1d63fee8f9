"""The page as people open it: from a file, in a browser, on a telephone, without a network."""

import made_up
import pytest

from rediffuse.report import page
from rediffuse.runs.folder import RunFolder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return page.write(RunFolder(made_up.run(tmp_path_factory.mktemp("runs") / "run", epochs=4)))


def test_it_opens_from_a_file_and_asks_nothing_of_anyone(visit, report):
    with visit(report.as_uri()) as seen:
        assert seen.left == [] and seen.complaints == []
        assert seen.page.title() == "run · Rediffuse"
        assert seen.page.locator("svg").count() > 5
        assert seen.shown().startswith('url("data:image/webp')


def test_a_page_that_reaches_out_would_be_seen(visit, report, tmp_path):
    (tmp_path / "x.html").write_text(
        report.read_text().replace("</main>", "<img src='https://example.com/x.png'></main>")
    )
    with visit((tmp_path / "x.html").as_uri()) as seen:
        assert any("Content Security Policy" in said for said in seen.complaints)


@pytest.mark.parametrize(
    "change",
    [
        ("</main>", "<script>window.pwned=1</script></main>"),
        ('"use strict";', '"use strict"; window.pwned=1;'),
    ],
)
def test_a_script_that_is_not_ours_does_not_run(change, visit, report, tmp_path):
    """Whether it stands beside ours or in it."""
    (tmp_path / "x.html").write_text(report.read_text().replace(*change))
    with visit((tmp_path / "x.html").as_uri()) as seen:
        assert any("Content Security Policy" in said for said in seen.complaints)
        assert not seen.ran()


def test_the_slider_moves_through_training(visit, report):
    with visit(report.as_uri()) as seen:
        slider, now = seen.page.get_by_label("Move through training"), seen.page.locator("#now")
        pictures = [seen.shown()]
        assert now.text_content().startswith("before training")
        slider.fill("4")
        pictures.append(seen.shown())
        assert now.text_content().startswith("after 4 epochs")
        slider.press("ArrowLeft")
        pictures.append(seen.shown())
        assert "over-optimised from here" in now.text_content()
        assert slider.get_attribute("aria-valuetext") == now.text_content()
        slider.press("Home")
        assert seen.shown() == pictures[0] and len(set(pictures)) == 3


def test_it_plays(visit, report):
    with visit(report.as_uri()) as seen:
        before = seen.shown()
        seen.page.get_by_role("button", name="Play").click()
        seen.page.get_by_role("button", name="Pause").wait_for()
        seen.page.get_by_role("button", name="Play").wait_for()
        assert (
            seen.page.get_by_label("Move through training").input_value() == "4"
            and seen.shown() != before
        )


def test_every_picture_has_a_name(visit, report):
    with visit(report.as_uri()) as seen:
        names = seen.page.eval_on_selector_all(
            "[role=img]", "all => all.map(each => each.getAttribute('aria-label'))"
        )
        assert len(names) > 40 and all(names)
        assert "a dog riding a bike, before" in names


def test_without_scripts_the_pictures_are_there(visit, report):
    with visit(report.as_uri(), java_script_enabled=False) as seen:
        assert seen.page.locator("noscript").is_visible()
        assert seen.page.locator(".strip .tile").count() == 5 * 3
        assert not seen.page.locator("#at").is_visible()


@pytest.mark.parametrize("width", [320, 390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(width, scheme, visit, report):
    with visit(report.as_uri(), width=width, color_scheme=scheme) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_what_does_not_fit_would_be_seen(visit, report, tmp_path):
    (tmp_path / "x.html").write_text(
        report.read_text().replace("</main>", "<div style='width:500px'>x</div></main>")
    )
    with visit((tmp_path / "x.html").as_uri(), width=390) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") > 390


CONTRAST = """
() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(Number).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const inks = [...document.querySelectorAll("h1, p, .lead, .level, dt, dd, a, .caption, td, th, .chart text")].map(each => {
    const style = getComputedStyle(each);
    return light(each.namespaceURI.endsWith("svg") ? style.fill : style.color);
  });
  return Math.min(...inks.map(ink => (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05)));
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out_from_the_paper(scheme, visit, report):
    """By at least 4.5 to 1, which WCAG asks for."""
    with visit(report.as_uri(), color_scheme=scheme) as seen:
        assert seen.page.evaluate(CONTRAST) >= 4.5


def test_a_word_that_does_not_would_be_seen(visit, report):
    with visit(report.as_uri()) as seen:
        seen.page.add_style_tag(content="p { color: #aaa }")
        assert seen.page.evaluate(CONTRAST) < 4.5
