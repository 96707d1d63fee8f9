"""A vision-language model on a server with the OpenAI chat protocol and images: vLLM, SGLang,
llama.cpp, …
"""

import base64
from collections.abc import Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
from PIL import Image

from rediffuse.errors import ConfigError, RewardError
from rediffuse.images import encoded
from rediffuse.processes.threads import Pool
from rediffuse.rewards._answers import Answer, said
from rediffuse.rewards._http import Http, PassingError, Patience, RefusedError, excerpt

UNSPOKEN = ("refusal", "reasoning_content", "reasoning")
"""Fields of a message that may hold text if it has no content."""


@dataclass(frozen=True)
class ServedModel:
    """A vision-language model on a server.

    Attributes:
        http: How the server is reached; its URL ends with /v1.
        model: The model's name on the server.
        max_tokens: The most tokens of an answer.
        jpeg_quality: The quality of the JPEG files that images are sent as; None: PNG.
    """

    http: Http
    model: str
    max_tokens: int
    jpeg_quality: int | None

    def check(self) -> None:
        """Checks that the server has the model.

        Some servers do not list all of their models, so a model that is not listed is sent a
        question. Transient failures are ignored.

        Raises:
            ConfigError: If the server refuses the question.
            RewardError: If the server redirects, or does not accept the key.
        """
        with self.http.client() as client:
            try:
                known = [
                    str(each["id"]) for each in self.http.json(client, "GET", "/models")["data"]
                ]
            except (PassingError, RefusedError, LookupError, TypeError):
                known = []
            if self.model in known:
                return
            try:
                self.http.json(
                    client,
                    "POST",
                    "/chat/completions",
                    self._question(Image.new("RGB", (64, 64)), "What is this?"),
                )
            except RefusedError as error:
                listed = f" It lists {', '.join(known[:20])}." if known else ""
                raise ConfigError(
                    f"reward.vlm: {self.http.url} does not serve {self.model!r} ({error}).{listed}"
                ) from error
            except PassingError:
                return

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[Answer]:
        """Asks one question about each image; requests are concurrent.

        Returns:
            One answer for each image. Its status is "failed" if the server refused the question,
            and "timeout" if it did not answer before the deadline.

        Raises:
            RewardError: If the server answered no question before the deadline, redirects, or does
                not accept the key.
        """
        pool, patience = Pool(self.http.concurrency), Patience()
        with self.http.client() as client:
            asked = [
                pool.submit(partial(self._answer, client, patience, *each))
                for each in zip(images, questions, strict=True)
            ]
            wait(asked)
        pool.stop()
        silent = [
            error
            for each in asked
            if isinstance(error := each.exception(), RewardError) and error.passing
        ]
        if len(silent) == len(asked):
            raise silent[0]
        return [
            Answer("", "timeout") if each.exception() in silent else each.result() for each in asked
        ]

    def _answer(
        self, client: httpx2.Client, patience: Patience, image: Image.Image, question: str
    ) -> Answer:
        body = self._question(image, question)
        try:
            return self.http.retried(
                lambda: _said(self.http.json(client, "POST", "/chat/completions", body)), patience
            )
        except RefusedError as error:
            return Answer("", "failed", str(error))

    def _question(self, image: Image.Image, question: str) -> dict[str, Any]:
        content = [
            {"type": "image_url", "image_url": {"url": self._data_url(image)}},
            {"type": "text", "text": question},
        ]
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": False,
        }

    def _data_url(self, image: Image.Image) -> str:
        kind = "png" if self.jpeg_quality is None else "jpeg"
        content = base64.b64encode(encoded(image, self.jpeg_quality)).decode()
        return f"data:image/{kind};base64,{content}"


def _said(answer: Any) -> Answer:
    """Reads a response. Raises PassingError if it does not have the form of an answer."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        content = message["content"]
        if isinstance(content, list):  # content may come in parts
            content = "".join(part["text"] for part in content if part["type"] == "text")
        unspoken = next(
            (text for name in UNSPOKEN if isinstance(text := message.get(name), str) and text), ""
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise PassingError(
            f"an answer without choices[0].message.content: {excerpt(str(answer), 60)}"
        ) from error
    if content is None and unspoken:
        return Answer(
            "",
            "unparseable",
            "no content, for which a larger reward.max_tokens may help; the answer has instead:"
            f" {unspoken}",
        )
    if not isinstance(content, str):
        raise PassingError(f"an answer that is not text: {excerpt(str(content), 60)}")
    return said(content.strip())
