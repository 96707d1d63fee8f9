"""A local web server that shows a run's report during training and updates it when the run's files
change.
"""

import hashlib
import threading
from dataclasses import asdict, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rediffuse.errors import RediffuseError, RunError
from rediffuse.report import page
from rediffuse.report.markup import rendered
from rediffuse.runs.folder import RunFolder
from rediffuse.scoring import loopback
from rediffuse.terminal.output import say, show
from rediffuse.verdict import verdict

LOOPBACK = ("127.0.0.1", "localhost")
WATCHED = (
    "metrics.jsonl",
    "rewards.jsonl",
    "monitor.jsonl",
    "config.yaml",
    "evaluation/evaluation.json",
    "samples/*/grid.png",
)
"""The files whose changes update the page."""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Live:
    """The page of a run and its version, which depends on the present state of the run's files."""

    def __init__(self, run: RunFolder) -> None:
        self._run, self._lock = run, threading.Lock()
        self._html, self._version, self._said = "", "", ""

    def version(self) -> str:
        """Returns a hash that changes when a watched file changes."""
        found = [
            (path.name, _stamp(path))
            for pattern in WATCHED
            for path in sorted(self._run.path.glob(pattern))
        ]
        return hashlib.sha256(repr(found).encode()).hexdigest()[:24]

    def html(self) -> str:
        """Returns the current page, or the last one that could be rendered."""
        with self._lock:
            version = self.version()
            if version != self._version:
                self._html, self._version = self._rendered(version), version
            return self._html

    def _rendered(self, version: str) -> str:
        """Renders the page; if the files cannot be read at present, returns the previous one."""
        try:
            told = page.read(self._run)
            if said := verdict.of_run(self._run):
                told = replace(told, verdict=asdict(said))
            return page.render(told, version=version)
        except (RediffuseError, OSError, ValueError, KeyError, TypeError) as error:
            return self._html or self._waiting(version, self._trouble(error))

    def _trouble(self, error: Exception) -> str:
        """Returns why the files cannot be read, and prints it once; empty before the first
        completed epoch.
        """
        trouble = str(error) if self._run.metrics.is_symlink() or self._run.metrics.exists() else ""
        if trouble and trouble != self._said:
            say(f"the page could not be updated: {trouble}")
            self._said = trouble
        return trouble

    def _waiting(self, version: str, trouble: str) -> str:
        name = self._run.path.resolve().name
        return rendered(
            "waiting.html.jinja",
            scripts=page.LIVE_SCRIPTS,
            live=True,
            name=name,
            version=version,
            trouble=trouble,
        )


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD requests to / only."""

    live: Live

    def do_GET(self) -> None:
        """Responds with the page, and its version as ETag."""
        if self._welcome():
            self._answer(HTTPStatus.OK, self.live.html().encode())

    def do_HEAD(self) -> None:
        """Responds as GET does, without a body."""
        if self._welcome():
            self._answer(HTTPStatus.OK)

    def log_message(self, format: str, *args: object) -> None:
        """Disables the log of requests, which would disturb the training's output."""

    def _welcome(self) -> bool:
        hosts = self.headers.get_all("Host") or []
        if not loopback.is_own(hosts):
            self._answer(HTTPStatus.FORBIDDEN)
            return False
        if self.path != "/":
            self._answer(HTTPStatus.NOT_FOUND)
            return False
        return True

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status is HTTPStatus.OK:
            self.send_header("ETag", self.live.version())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """An HTTP server on the loopback interface that shows one run."""

    daemon_threads = True


def server(run: RunFolder, port: int, host: str = "127.0.0.1") -> Server:
    """Binds a server without starting it.

    Args:
        run: The run to show.
        port: The port; 0: any free one.
        host: A loopback address.

    Raises:
        RunError: The host is not a loopback address, or the port is not available.
    """
    if host not in LOOPBACK:
        names = " or ".join(LOOPBACK)
        raise RunError(
            f"host: {host!r} can be reached by others; the page is served on {names}. From"
            " elsewhere, use ssh -L."
        )
    own = type("OwnHandler", (Handler,), {"live": Live(run)})
    try:
        return Server((host, port), own)
    except (OSError, OverflowError) as error:
        raise RunError(f"Cannot serve on {host}:{port}: {error}. Choose another port.") from error


def follow(run: RunFolder, port: int, host: str = "127.0.0.1") -> None:
    """Serves a run's page until Ctrl-C. Raises RunError if the port is not available."""
    with server(run, port, host) as ready:
        show(f"Following {run.path} at http://{host}:{ready.server_port}/ until Ctrl-C")
        try:
            ready.serve_forever()
        except KeyboardInterrupt:
            return


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
