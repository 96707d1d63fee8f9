import os
import shutil

import pytest

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium():
    return shutil.which("chromium") or shutil.which("google-chrome")


def absent(what):
    """A check that is skipped where it must be made would be a guard that cannot fail."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def browser():
    if chromium() is None:
        absent("Chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        yield launched
        launched.close()


class Visit:
    """A page in a browser, and what it did on the way: requests, words on the console, errors."""

    def __init__(self, browser, address, width=1000, **options):
        self.page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        self.requests, self.complaints = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    @property
    def left(self):
        """What it asked of others."""
        return [
            url for url in self.requests if url != self.page.url and not url.startswith("data:")
        ]

    def shown(self):
        """The picture behind the slider's first tile."""
        return self.page.evaluate(
            "getComputedStyle(document.querySelector('#slider .tile')).backgroundImage"
        )

    def ran(self):
        """Whether somebody else's code did."""
        return self.page.evaluate("window.pwned !== undefined")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.page.close()


@pytest.fixture(scope="session")
def visit(browser):
    return lambda address, **options: Visit(browser, address, **options)
