import http.client
import shutil
import threading

import made_up
import pytest

from rediffuse.errors import RunError
from rediffuse.report import follow
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder


@pytest.fixture
def run(tmp_path):
    return RunFolder(made_up.run(tmp_path / "run", epochs=3))


@pytest.fixture
def served(run):
    server = follow.server(run, port=0)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def asked(server, path="/", method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def address(server):
    return f"http://127.0.0.1:{server.server_port}/"


def test_it_serves_the_page_and_nothing_else(served):
    answer, body = asked(served)
    assert answer.status == 200 and "The run is too short to judge." in body
    assert (
        "connect-src &#39;self&#39;" in body
        and answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    )
    for path in ("/config.yaml", "/../config.yaml", "/metrics.jsonl", "/?x", "http://127.0.0.1/"):
        assert asked(served, path)[0].status == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert asked(served, method=method)[0].status == 501


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.com",
        "127.0.0.1.example.com",
        "localhost.example.com:80",
        "10.0.0.1",
        "127.0.0.1@x",
        "0",
    ],
)
def test_a_foreign_name_that_points_here_is_refused(host, served):
    answer, body = asked(served, host=host)
    assert answer.status == 403 and body == ""


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:80"])
def test_its_own_names_are_not(host, served):
    assert asked(served, host=host)[0].status == 200


def test_the_version_changes_with_the_files_and_not_without(served, run):
    def version():
        answer, body = asked(served, method="HEAD")
        assert body == ""
        return answer.headers["ETag"]

    first = version()
    assert version() == first and f'data-version="{first}"' in asked(served)[1]
    log.append(run.metrics, [made_up.metrics_row(3)])
    assert version() != first


def test_while_a_file_cannot_be_read_the_last_page_stays(served, run):
    before = asked(served)[1]
    run.metrics.write_text("{]\n")
    assert asked(served)[1] == before


def test_only_this_machine_can_be_served(run):
    with pytest.raises(RunError, match="can be reached by others"):
        follow.server(run, port=0, host="0.0.0.0")


def test_a_port_that_is_taken_is_told(run, served):
    with pytest.raises(RunError, match="Choose another port"):
        follow.server(run, port=served.server_port)
    with pytest.raises(RunError, match="Choose another port"):
        follow.server(run, port=99999)


def test_serving_ends_at_ctrl_c(run, monkeypatch, capsys):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(follow.Server, "serve_forever", interrupted)
    follow.follow(run, port=0)
    assert f"Following {run.path} at http://127.0.0.1:" in capsys.readouterr().out


def test_a_page_in_a_browser_renews_itself_and_keeps_the_place(visit, served, run):
    with visit(address(served), width=390) as seen:
        slider = seen.page.get_by_label("Move through training")
        slider.fill("2")
        slider.focus()
        seen.page.locator("summary").first.evaluate("each => { each.parentElement.open = true }")
        seen.page.evaluate("scrollTo({top: 700, behavior: 'instant'})")
        log.append(run.metrics, [made_up.metrics_row(3)])
        made_up.samples(run.path, range(5))
        seen.page.get_by_text("4 of 3").wait_for(state="attached")
        assert seen.page.locator("#now").text_content().startswith("after 2 epochs")
        assert seen.page.evaluate("document.activeElement.id") == "at"
        # not 0, where a page begins; the browser keeps what is read in its place, if lines come above it
        assert 600 < seen.page.evaluate("scrollY") < 1100
        assert seen.page.locator("details").first.get_attribute("open") is not None
        slider.press("End")
        assert seen.page.locator("#now").text_content().startswith("after 4 epochs")
        assert seen.complaints == [] and {
            url for url in seen.requests if not url.startswith("data:")
        } == {address(served)}


def test_before_the_first_epoch_it_waits(visit, served, run):
    kept = run.metrics.read_text()
    run.metrics.unlink()
    with visit(address(served)) as seen:
        assert "No epoch of this run is finished yet" in seen.page.text_content("main")
        run.metrics.write_text(kept)
        seen.page.get_by_text("The run is too short to judge.").wait_for()
        assert seen.page.locator("#now").text_content().startswith("before training")
        assert seen.complaints == []


def test_when_the_server_is_gone_the_page_says_so(visit, run):
    server = follow.server(run, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with visit(address(server)) as seen:
        seen.page.get_by_text("this page updates itself").wait_for()
        server.shutdown()
        server.server_close()
        seen.page.get_by_text("cannot be reached").wait_for()
        assert "The run is too short to judge" in seen.page.text_content("main")


def test_a_run_that_is_gone_leaves_its_last_page(served, run):
    before = asked(served)[1]
    shutil.rmtree(run.path)
    assert asked(served)[1] == before


def test_a_damaged_log_is_told_on_the_page_and_once_in_the_terminal(run, capsys):
    log.append(run.metrics, [made_up.metrics_row(3)])
    run.metrics.write_text(
        run.metrics.read_text().replace('"masked_rewards": 0', '"masked_rewards": 9')
    )
    live = follow.Live(run)
    said = [live.html(), live._rendered("again")]
    assert all(
        "metrics.jsonl, line 4: this line was changed after it was written" in text for text in said
    )
    assert " ".join(capsys.readouterr().err.split()).count("line 4") == 1


def test_a_run_without_an_epoch_is_waited_for_in_silence(run, capsys):
    run.metrics.unlink()
    assert "No epoch of this run is finished yet." in follow.Live(run).html()
    assert capsys.readouterr().err == ""
