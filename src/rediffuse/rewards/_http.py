"""Asking a server for JSON: patiently where a failure may pass, never where it will not, and no
more than is safe.
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
"""Of an answer; what is longer is not read to its end."""
Answer = TypeVar("Answer")
FAILED_THERE = 424
"""What `rediffuse serve` says where its reward fails: asking again would not mend it."""
LONGEST_WAIT_SECONDS = 30.0


class PassingError(Exception):
    """A failure that may pass. wait_seconds: as long as the server asked for."""

    def __init__(self, what: str, wait_seconds: float | None = None) -> None:
        super().__init__(what)
        self.wait_seconds = wait_seconds


class RefusedError(Exception):
    """This question will never be answered."""


class Patience:
    """With a server, over several questions that are asked side by side: each answer to any of them
    renews it.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begins the wait anew, since something was heard."""
        self._since = time.monotonic()

    @property
    def silence_seconds(self) -> float:
        """How long nothing was heard."""
        return time.monotonic() - self._since


@dataclass(frozen=True)
class Http:
    """key_variable: the name of the environment variable that holds the key.

    timeout_seconds: of one request
    deadline_seconds: for how long the server may leave all that it is asked without an answer.
    """

    url: str
    key_variable: str | None
    concurrency: int
    timeout_seconds: float
    deadline_seconds: float

    def retried(self, attempt: Callable[[], Answer], patience: "Patience") -> Answer:
        """Full jitter between attempts, of at most a thirtieth of the deadline; longer where the
        server asks for it.

        Raises RewardError, which may pass, where the patience is over.
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
        """Raises PassingError or RefusedError."""
        with _transport_errors(), client.stream(method, path, json=body) as response:
            if response.is_redirect:
                raise RewardError(
                    f"The server {self.url} redirects {path}, which is not followed; give the"
                    " address it is at."
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
                raise RefusedError(
                    "the reward behind it failed; what went wrong stands in that server's own"
                    " output"
                )
            if response.status_code >= 400:
                raise RefusedError(
                    f"status {response.status_code}: {_message(next(response.iter_bytes(), b''))}"
                )
            read, began = bytearray(), time.monotonic()
            for chunk in response.iter_bytes():
                read += chunk
                # the client's own limit is for each piece
                if time.monotonic() - began > self.timeout_seconds:
                    raise PassingError(
                        f"an answer that trickled in for {self.timeout_seconds:g} seconds"
                    )
                if len(read) > MOST_BYTES:
                    raise RefusedError(f"more than {MOST_BYTES} bytes")
        try:
            return json.loads(read)
        except (ValueError, RecursionError) as error:
            raise PassingError(
                f"what it says is not JSON: {excerpt(read.decode('utf-8', 'replace'), 60)}"
            ) from error

    def client(self) -> httpx2.Client:
        """The client, made when it is first needed."""
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
    """Raises ConfigError under `key` for what is no address, a key in it, anything sent elsewhere
    in the clear unless that is allowed, a key even then, or a variable that is not set.
    """
    try:
        place = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigError(f"{key}: {url!r} is no address: {error}") from error
    if place.scheme not in ("http", "https") or not place.host:
        raise ConfigError(f"{key}: {url!r} must look like http://127.0.0.1:8000/v1.")
    if place.userinfo:
        raise ConfigError(
            f"{key}: no password in the address; put a key in a variable: --reward.key-variable"
            " NAME"
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
        raise ConfigError(f"reward.key_variable: {key_variable} holds letters that no header can.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def excerpt(text: str, most: int = 200) -> str:
    """Of what a server says: on one line, at most that many letters, control codes by their
    escapes.
    """
    return printable(" ".join(text[: 10 * most].split())[:most])


def _message(body: bytes) -> str:
    """Of a refusal: the text under `error.message`, `error`, `message` or `detail`, as servers put
    it; else its first letters.
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
    """Of Retry-After in seconds, which it gives as such or as a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # neither, or a date of no time zone
        return None
