import shutil

import made_up
import pytest
from inert import troubles

from rediffuse.errors import RunError
from rediffuse.report import index


@pytest.fixture
def folder(tmp_path):
    for name in ("first", "second run"):
        made_up.run(tmp_path / name, epochs=3)
    return tmp_path


def test_every_run_has_its_card_and_its_page(folder):
    shutil.rmtree(folder / "first" / "samples")
    text = index.write(folder).read_text()
    assert troubles(text) == []
    for said in (
        "2 runs",
        'href="first/report.html"',
        'href="second%20run/report.html"',
        "It learned, then went too far.",
        "0 → 1.41",
    ):
        assert said in text
    assert text.count("<img") == 1 and text.count("<svg") == 2
    assert (folder / "second run" / "report.html").exists()


def test_a_page_that_is_there_is_left_alone(folder):
    (folder / "first" / "report.html").write_text("mine")
    index.write(folder)
    assert (folder / "first" / "report.html").read_text() == "mine"


def test_a_run_that_cannot_be_read_stands_there_with_the_reason(folder):
    (folder / "first" / "metrics.jsonl").unlink()
    (folder / "second run" / "metrics.jsonl").write_text("{\n")
    text = index.write(folder).read_text()
    assert "no finished epoch" in text and "<a " not in text


def test_a_verdict_that_is_a_link_is_not_shown(folder):
    index.write(folder)
    verdict = folder / "first" / "verdict.json"
    verdict.rename(folder / "elsewhere.json")
    verdict.symlink_to(folder / "elsewhere.json")
    text = index.write(folder).read_text()
    assert "verdict.json is a link" in text and text.count("It learned, then went too far.") == 1


def test_a_folder_without_a_run_is_told_so(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        index.write(tmp_path)


def test_a_browser_shows_it_and_finds_the_page_of_a_run(visit, folder):
    with visit(index.write(folder).as_uri(), width=390) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
        seen.page.get_by_role("link", name="second run").click()
        assert seen.page.title() == "second run · Rediffuse"
        assert seen.complaints == []


def test_an_index_elsewhere_writes_nothing_into_the_runs(folder, tmp_path_factory):
    (folder / "first" / "report.html").write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    out = tmp_path_factory.mktemp("there") / "runs.html"
    text = index.write(folder, out).read_text()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (out.parent / text.split('<a href="')[1].split('"')[0]).resolve() == (
        folder / "first" / "report.html"
    ).resolve()
    assert text.count("report.html") == 1 and "second run" in text
