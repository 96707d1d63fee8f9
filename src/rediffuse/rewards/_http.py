"""HTTP requests for JSON: transient failures are retried, others are not; responses are limited in
size, and keys are never sent unencrypted to other machines.
"""

import ipaddress
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2
import tenacity

from rediffuse.errors import ConfigError, RewardError
from rediffuse.scoring.judging import may_pass
from rediffuse.terminal.output import printable

MOST_BYTES = 1_000_000
"""The largest response; a larger one is refused without reading the rest."""
Answer = TypeVar("Answer")
FAILED_THERE = 424
"""The status with which `rediffuse serve` reports that its reward failed; retrying is useless."""
LONGEST_WAIT_SECONDS = 30.0
"""The longest pause between two attempts."""


class PassingError(Exception):
    """A transient failure.

    Attributes:
        wait_seconds: How long the server asked to wait before the next attempt; None: it did not.
    """

    def __init__(self, what: str, wait_seconds: float | None = None) -> None:
        super().__init__(what)
        self.wait_seconds = wait_seconds


class RefusedError(Exception):
    """A failure that every further attempt would have too."""


class Patience:
    """Measures how long a server has been silent. Concurrent requests share one, which any answer
    restarts.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Restarts the measurement, after an answer."""
        self._since = time.monotonic()

    @property
    def silence_seconds(self) -> float:
        """The time since the last answer, in seconds."""
        return time.monotonic() - self._since


@dataclass(frozen=True)
class Http:
    """How a server is reached.

    Attributes:
        url: The base of all addresses.
        key_variable: The environment variable that holds the key, a bearer token; None: no key.
        concurrency: The most connections at a time.
        timeout_seconds: The time limit of one request.
        deadline_seconds: How long requests are retried while the server answers none of them.
    """

    url: str
    key_variable: str | None
    concurrency: int
    timeout_seconds: float
    deadline_seconds: float

    def retried(self, attempt: Callable[[], Answer], patience: "Patience") -> Answer:
        """Repeats an attempt until it succeeds.

        Pauses grow exponentially with full jitter, up to a thirtieth of the deadline. If the server
        asks for a longer pause, that is kept. No pause exceeds LONGEST_WAIT_SECONDS.

        Args:
            attempt: Makes one request; raises PassingError for a transient failure.
            patience: Shared with concurrent requests to this server.

        Raises:
            RewardError: With `passing`, if the server has been silent for longer than the deadline.
        """
        longest = min(LONGEST_WAIT_SECONDS, self.deadline_seconds / 30)
        jitter = tenacity.wait_random_exponential(multiplier=min(0.5, longest), max=longest)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait_seconds if isinstance(error, PassingError) else None
            return max(jitter(state), min(asked or 0.0, LONGEST_WAIT_SECONDS))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingError),
            wait=wait,
            stop=lambda state: patience.silence_seconds > self.deadline_seconds,
            reraise=True,
        )
        try:
            answer = retrying(attempt)
        except PassingError as error:
            raise RewardError(
                f"The server {self.url} gave no answer for {self.deadline_seconds:g} seconds:"
                f" {error}.",
                "timeout",
                passing=True,
            ) from None
        patience.renew()
        return answer

    def json(self, client: httpx2.Client, method: str, path: str, body: Any = None) -> Any:
        """Makes a request and returns the decoded response.

        Raises:
            PassingError: If the connection fails or times out, the status is transient, or the
                response is not JSON.
            RefusedError: If the status is another error, or the response is too large.
            RewardError: If the server redirects, or does not accept the key.
        """
        with _transport_errors(), client.stream(method, path, json=body) as response:
            if response.is_redirect:
                raise RewardError(
                    f"The server {self.url} redirects {path}, and redirects are not followed;"
                    " give the final address."
                )
            if may_pass(response.status_code):
                raise PassingError(
                    f"status {response.status_code}",
                    _asked_wait(response.headers.get("retry-after")),
                )
            if response.status_code in (401, 403):
                raise RewardError(
                    f"The server {self.url} asks for a key ({response.status_code}). Put it in an"
                    " environment variable and name that: --reward.key-variable NAME"
                )
            if response.status_code == FAILED_THERE:
                raise RefusedError("the reward failed on the server, whose own output says why")
            if response.status_code >= 400:
                raise RefusedError(
                    f"status {response.status_code}: {_message(next(response.iter_bytes(), b''))}"
                )
            read, began = bytearray(), time.monotonic()
            for chunk in response.iter_bytes():
                read += chunk
                # the client's own timeout applies to each chunk
                if time.monotonic() - began > self.timeout_seconds:
                    raise PassingError(
                        f"an answer that was incomplete after {self.timeout_seconds:g} seconds"
                    )
                if len(read) > MOST_BYTES:
                    raise RefusedError(f"more than {MOST_BYTES} bytes")
        try:
            return json.loads(read)
        except (ValueError, RecursionError) as error:
            raise PassingError(
                f"its answer is not JSON: {excerpt(read.decode('utf-8', 'replace'), 60)}"
            ) from error

    def client(self) -> httpx2.Client:
        """Returns a new client, which sends the key, follows no redirects and ignores the proxies
        of the environment.
        """
        key = os.environ.get(self.key_variable, "").strip() if self.key_variable else ""
        return httpx2.Client(
            base_url=self.url,
            headers={
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {key}"} if key else {}),
            },
            timeout=self.timeout_seconds,
            limits=httpx2.Limits(max_connections=self.concurrency),
            follow_redirects=False,
            trust_env=False,
        )


def refuse_unsafe(key: str, url: str, key_variable: str | None, allow_plain_http: bool) -> None:
    """Checks how a server would be reached, before anything is sent.

    Args:
        key: The configuration option that holds the address, for error messages.
        url: The address.
        key_variable: The environment variable that holds the key; None: no key.
        allow_plain_http: Whether data may be sent unencrypted to other machines. A key may not.

    Raises:
        ConfigError: If the address is invalid or contains a password, if data or a key would be
            sent unencrypted without permission, or if the variable is not set or holds characters
            that a header cannot.
    """
    try:
        place = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigError(f"{key}: {url!r} is not a valid address: {error}") from error
    if place.scheme not in ("http", "https") or not place.host:
        raise ConfigError(f"{key}: {url!r} must look like http://127.0.0.1:8000/v1.")
    if place.userinfo:
        raise ConfigError(
            f"{key}: the address must not contain a password; put a key in an environment"
            " variable and name that: --reward.key-variable NAME"
        )
    if place.scheme == "http" and key_variable and not _is_loopback(place.host):
        raise ConfigError(
            f"{key}: a key would be sent to {place.host} in the clear; use https, or loopback."
        )
    if place.scheme == "http" and not allow_plain_http and not _is_loopback(place.host):
        raise ConfigError(
            f"{key}: prompts and images would be sent to {place.host} in the clear. Use https, or"
            " an ssh tunnel to loopback; in a network that you trust: --reward.allow-plain-http"
            " true"
        )
    secret = os.environ.get(key_variable, "").strip() if key_variable else ""
    if key_variable and not secret:
        raise ConfigError(f"reward.key_variable: the environment has no {key_variable}.")
    if not (secret.isascii() and secret.isprintable()):
        raise ConfigError(
            f"reward.key_variable: {key_variable} holds characters that an HTTP header cannot"
            " contain."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def excerpt(text: str, most: int = 200) -> str:
    """Returns the first `most` characters of a server's text, on one line and with control
    characters escaped.
    """
    return printable(" ".join(text[: 10 * most].split())[:most])


def _message(body: bytes) -> str:
    """Returns the text in an error response: the value of `error.message`, `error`, `message` or
    `detail`, whichever it has; otherwise the beginning of the body.
    """
    try:
        found = json.loads(body)
        for name in ("error", "message", "detail"):
            found = found.get(name, found) if isinstance(found, dict) else found
    except (ValueError, RecursionError):
        found = None
    return excerpt(found if isinstance(found, str) else body.decode("utf-8", "replace"))


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except httpx2.TransportError as error:
        raise PassingError(f"{type(error).__name__}: {error}") from error


def _asked_wait(header: str | None) -> float | None:
    """Returns the pause in seconds from a Retry-After header, which holds seconds or a date; None
    if it is missing or invalid.
    """
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # not a date, or one without a time zone
        return None
