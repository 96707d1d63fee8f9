"""A reward that `rediffuse serve` computes elsewhere: on another machine, or where its dependencies
are.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args

import httpx2
from pydantic import Field

from rediffuse.config.inputs import by_name
from rediffuse.config.schema import Address, Connection, Permit, Positive, Variable
from rediffuse.deferred import torch
from rediffuse.errors import ConfigError, RewardError, Status
from rediffuse.images import encoded, pictures
from rediffuse.rewards._http import (
    Http,
    PassingError,
    Patience,
    RefusedError,
    excerpt,
    refuse_unsafe,
)
from rediffuse.rewards._loading import LoadedReward
from rediffuse.scoring.judging import together
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Remote"]


MOST_IN_VAIN = 3
"""Images of a batch that are asked about by themselves where all were refused."""


@dataclass(frozen=True)
class Remote:
    """url: as `rediffuse serve` says it
    key_variable: the name of the environment variable that holds the server's token.

    timeout_seconds: of a request
    deadline_seconds: for how long the server is asked again without an answer; then its images have
        timed out, and the run's own patience begins (scoring.max_failed, scoring.deadline_seconds).
    allow_plain_http: to a server elsewhere, of a network that you trust.
    images_per_request: at most; images travel as PNG files, which hold 8 bits of each colour.
    """

    url: Address = "http://127.0.0.1:8765"
    key_variable: Variable | None = None
    timeout_seconds: Connection[Positive] = 120.0
    deadline_seconds: Connection[Positive] = 300.0
    allow_plain_http: Permit = False
    images_per_request: Connection[Annotated[int, Field(ge=1, le=256)]] = 32
    judges = "image"

    def __post_init__(self) -> None:
        refuse_unsafe("reward.url", self.url, self.key_variable, self.allow_plain_http)

    def load(self, device: str) -> LoadedReward[Http]:
        """Raises ConfigError for a server of something else; one that is silent may come back."""
        http = Http(self.url, self.key_variable, 1, self.timeout_seconds, self.deadline_seconds)
        self._check(http)
        return LoadedReward(http, self.scores)

    def _check(self, http: Http) -> None:
        with http.client() as client:
            try:
                answer = http.json(client, "GET", "/health")
            except PassingError:
                return
            except RefusedError as error:
                raise ConfigError(
                    f"reward.url: {self.url} is not a `rediffuse serve` server ({error})."
                ) from error
        if not isinstance(answer, Mapping) or "reward" not in answer:
            raise ConfigError(
                f"reward.url: {self.url} is not a `rediffuse serve` server; it answered"
                f" {excerpt(str(answer), 60)}."
            )

    def scores(self, http: Http, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Scores images (B, 3, H, W) in [0, 1]."""
        files = [base64.b64encode(encoded(each, None)).decode() for each in pictures(images)]
        asked = [
            {"text": each.text, "metadata": dict(each.metadata), "inputs": by_name(each.inputs)}
            for each in prompts
        ]
        begins = range(0, len(files), self.images_per_request)
        with http.client() as client:
            answers = [
                _ask(
                    http,
                    client,
                    files[i : i + self.images_per_request],
                    asked[i : i + self.images_per_request],
                )
                for i in begins
            ]
        judgement = together(answers)
        if set(judgement.statuses) == {"failed"}:
            raise RewardError(f"{self.url}: {judgement.notes['refused'][0]}")
        return judgement


def _ask(
    http: Http,
    client: httpx2.Client,
    files: Sequence[str],
    prompts: Sequence[Mapping[str, Any]],
) -> Judgement:
    """Where the server refuses several images, each by itself: most may be well. What fails
    then has a note of why.
    """
    body = {"images": files, "prompts": prompts}
    try:
        return http.retried(
            lambda: _checked(http.json(client, "POST", "/score", body), len(files)),
            Patience(),
        )
    except RefusedError as error:
        alone: list[Judgement] = []
        for i in range(len(files) if len(files) > 1 else 0):
            if len(alone) == MOST_IN_VAIN and not any(each.statuses == ["ok"] for each in alone):
                break
            alone.append(_ask(http, client, files[i : i + 1], prompts[i : i + 1]))
        rest = len(files) - len(alone)
        lost = Judgement(
            torch.full((rest,), torch.nan),
            {},
            {"refused": [str(error)] * rest},
            ["failed"] * rest,
        )
        return together([*alone, lost])


def _checked(answer: Any, size: int) -> Judgement:
    """Raises PassingError for what is no answer to `size` images."""
    try:
        parts = {str(name): _numbers(values, size) for name, values in answer["parts"].items()}
        notes = {
            str(name): [str(text) for text in texts] for name, texts in answer["notes"].items()
        }
        if any(len(texts) != size for texts in notes.values()):
            raise ValueError("a note is missing")
        statuses = list(answer.get("statuses", [])) or ["ok"] * size
        if len(statuses) != size or not set(statuses) <= set(get_args(Status)):
            raise ValueError("a status is missing")
        return Judgement(_numbers(answer["values"], size), parts, notes, statuses)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PassingError(f"no answer to {size} images: {excerpt(str(answer), 60)}") from error


def _numbers(values: Sequence[float | None], size: int) -> Tensor:
    """null is NaN."""
    numbers = torch.tensor(
        [math.nan if value is None else float(value) for value in values], dtype=torch.float64
    )
    if numbers.shape != (size,):
        raise ValueError(f"{len(numbers)} numbers")
    return numbers
