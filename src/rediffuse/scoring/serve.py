"""A reward behind HTTP and JSON, in an environment of its own; `rewards/remote.py` is its
client.
"""

import asyncio
import base64
import hmac
import io
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from PIL import Image
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from rediffuse.config.inputs import by_name
from rediffuse.errors import ConfigError, RewardError
from rediffuse.images import tensor
from rediffuse.processes.threads import Caller
from rediffuse.scoring import loopback
from rediffuse.scoring.judging import judged, together
from rediffuse.scoring.terms import load_reward
from rediffuse.terminal.output import say, show
from rediffuse.types import Judgement, Prompt, Reward, RewardFamily

MOST_IMAGES = 256
MOST_BYTES = 256_000_000
"""Of one request."""
MOST_PIXELS = 2**26
"""Of all images of one request, when they are unpacked: 256 of 512 x 512."""


class AskedPrompt(BaseModel):
    """A prompt as it comes in a request. Of an input that is a file, its name alone: the file is
    on another machine.
    """

    text: Annotated[str, Field(max_length=10_000)]
    metadata: dict[str, Any] = {}
    inputs: dict[str, Any] = {}


class ScoreRequest(BaseModel):
    """images: PNG or JPEG files in base64."""

    images: Annotated[list[str], Field(min_length=1, max_length=MOST_IMAGES)]
    prompts: list[AskedPrompt]


def app(name: str, reward: Reward, batch_size: int, token: str | None, caller: Caller) -> FastAPI:
    """GET /health; POST /score, with the token as a bearer's if there is one. One batch is scored
    at a time.

    Without a token, only requests that name this machine as loopback are answered.
    """
    service = FastAPI(title=f"{name}, a reward of Rediffuse", openapi_url=None)
    turn = asyncio.Lock()

    if token is None:
        service.middleware("http")(_refuse_foreign_pages)

    @service.get("/health")
    async def health() -> dict[str, str]:
        return {"reward": name, "status": "ok"}

    @service.post("/score")
    async def score(request: Request) -> dict[str, Any]:
        given = request.headers.get("authorization", "").encode()
        if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            raise HTTPException(401, "a token is required")
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            # which a page in a browser cannot send without consent
            raise HTTPException(415, "the content type must be application/json")
        asked = _read(await _body(request))
        async with turn:
            if await request.is_disconnected():  # and has asked again, or given up
                raise HTTPException(408, "the client is no longer connected")
            return await run_in_threadpool(caller.call, lambda: _answer(asked))

    def _answer(asked: ScoreRequest) -> dict[str, Any]:
        prompts = [Prompt(each.text, each.metadata, by_name(each.inputs)) for each in asked.prompts]
        try:
            return _as_json(
                together(_scored(name, reward, _images(asked.images), prompts, batch_size))
            )
        except RewardError as error:
            say(error)  # the whole of it here; whoever asked learns that it failed
            raise HTTPException(
                503 if error.passing else 424, f"the reward {name} failed"
            ) from error

    return service


def listen(
    name: str,
    reward: Reward | RewardFamily,
    *,
    host: str,
    port: int,
    device: str,
    batch_size: int,
    token: str | None,
) -> None:
    """Until it is stopped. Raises ConfigError for a reward of samples that are no images."""
    judged_kind = getattr(reward, "judges", "image")
    if judged_kind != "image":
        raise ConfigError(
            f"serve: {name} scores {judged_kind} samples, but only images can be sent to a"
            " server. Use it in the run itself: --reward"
        )
    caller = Caller()
    scores = caller.call(lambda: load_reward(reward, device))
    place = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    show(f"{name} at {place}; in a run: --reward remote --reward.url {place}")
    if token:
        show(
            "In the run, --reward.key-variable NAME names the environment variable with the"
            " token. Other machines connect through a TLS proxy or an ssh tunnel."
        )
    uvicorn.run(
        app(name, scores, batch_size, token, caller), host=host, port=port, log_level="warning"
    )


async def _refuse_foreign_pages(
    request: Request, go_on: Callable[[Request], Awaitable[Response]]
) -> Response:
    if not loopback.is_own(request.headers.getlist("host")):
        return JSONResponse(
            {
                "detail": f"the request must be addressed to one of {', '.join(loopback.NAMES)};"
                " other names require --token-variable"
            },
            403,
        )
    return await go_on(request)


async def _body(request: Request) -> bytes:
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > MOST_BYTES:
            raise HTTPException(413, f"more than {MOST_BYTES} bytes")
    return bytes(read)


def _read(body: bytes) -> ScoreRequest:
    try:
        asked = ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(
            422, [f"{each['loc']}: {each['msg']}" for each in error.errors()]
        ) from error
    if len(asked.images) != len(asked.prompts):
        raise HTTPException(422, f"{len(asked.images)} images, but {len(asked.prompts)} prompts")
    return asked


def _images(encoded: Sequence[str]) -> list[Tensor]:
    """(3, H, W) in [0, 1] each. Their sizes are read, and added up, before any is unpacked."""
    images, pixels = [], 0
    try:
        for each in encoded:
            image = Image.open(
                io.BytesIO(base64.b64decode(each, validate=True)), formats=("PNG", "JPEG")
            )
            pixels += image.width * image.height
            if pixels > MOST_PIXELS:
                raise ValueError(f"more than {MOST_PIXELS} pixels in all")
            images.append(image)
        return [tensor(image) for image in images]
    except (ValueError, OSError, Image.DecompressionBombError) as error:
        raise HTTPException(
            422, f"images[{len(images)}] is no PNG or JPEG file in base64, or too large: {error}"
        ) from error


def _scored(
    name: str, reward: Reward, images: Sequence[Tensor], prompts: Sequence[Prompt], size: int
) -> list[Judgement]:
    """In batches of images of one size, in order."""
    batches, begin = [], 0
    for end in range(1, len(images) + 1):
        if end == len(images) or end - begin == size or images[end].shape != images[begin].shape:
            batches.append(
                judged(reward, torch.stack(list(images[begin:end])), prompts[begin:end], name)
            )
            begin = end
    return batches


def _as_json(scores: Judgement) -> dict[str, Any]:
    """What is not a finite number is null."""
    parts = {name: _finite(values) for name, values in scores.parts.items()}
    notes = {name: list(texts) for name, texts in scores.notes.items()}
    return {
        "values": _finite(scores.values),
        "statuses": list(scores.statuses),
        "parts": parts,
        "notes": notes,
    }


def _finite(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
