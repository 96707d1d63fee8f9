import html.parser
import json
import shutil
import subprocess

import pytest
import tiny

from rediffuse import train
from rediffuse.errors import RunError
from rediffuse.report import page
from rediffuse.runs.folder import RunFolder

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "<script>x"
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("a cat\n<img src=x onerror=alert(1)>\n")
    train(tiny.config(prompts={"name": "text_file", "path": str(prompts)}), folder)
    return RunFolder(folder)


class Parsed(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_one_file_that_asks_nothing_of_the_network(run):
    parsed = Parsed(page.write(run).read_text())
    assert parsed.tags.count("img") >= 4
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith("data:")
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in parsed.attributes


def test_it_tells_the_rewards_and_the_configuration(run):
    text = page.write(run).read_text()
    for said in ("redness", "ddpo_is", ">16</b>reward queries", "config.yaml", "Before", "After", "a cat"):
        assert said in text


def test_masked_rewards_are_counted_by_what_became_of_them(run, tmp_path):
    assert "masked" not in page.write(run).read_text().partition("<h2>")[0]
    shutil.copytree(run.path, tmp_path / "run")
    place = tmp_path / "run" / "metrics.jsonl"
    rows = [json.loads(line) for line in place.read_text().splitlines()]
    rows[0] |= {"masked_rewards": 3, "masked_timeout": 1, "masked_non_finite": 2}
    rows[1] |= {"masked_rewards": 4, "masked_timeout": 4}
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "<b>7</b>rewards masked: 5 timeout, 2 non finite" in page.write(RunFolder(tmp_path / "run")).read_text()


def test_a_run_with_one_picture_shows_no_after(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    for stage in sorted((tmp_path / "run" / "samples").glob("epoch-*"))[1:]:
        shutil.rmtree(stage)
    text = page.write(RunFolder(tmp_path / "run")).read_text()
    assert "Before" in text
    assert "After: " not in text


def test_a_run_without_an_epoch_is_told_so(tmp_path):
    (tmp_path / "samples").mkdir()
    with pytest.raises(RunError, match="no finished epoch"):
        page.write(RunFolder(tmp_path))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_it(run, tmp_path):
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    more = [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.write(run).resolve().as_uri()]
    shown = subprocess.run([CHROMIUM, *options, *more], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "mean reward, first and last epoch" in shown


def test_a_reward_of_several_parts_has_a_panel_of_each(run, tmp_path):
    assert "What it is made of" not in page.write(run).read_text()
    terms = [{"name": "redness"}, {"name": "jpeg_compressibility"}]
    train(tiny.config(reward={"name": "weighted_sum", "rewards": terms}), tmp_path / "run")
    text = page.write(RunFolder(tmp_path / "run")).read_text()
    assert "What it is made of" in text
    assert page._parts([{"reward_queries": 8, "reward_mean": 1.0, "reward_redness": 1.0}], "redness") is None
