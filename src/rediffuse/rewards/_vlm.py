"""Vision-language models that answer questions about images, in this process or on a server."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from PIL import Image
from pydantic import Field

from rediffuse.config.schema import (
    Address,
    Connection,
    HubId,
    Permit,
    Positive,
    PositiveInt,
    Text,
    Variable,
)
from rediffuse.deferred import torch
from rediffuse.hub.weights import refuse_incomplete
from rediffuse.images import encoded, pictures, truncated
from rediffuse.rewards._answers import Answer, said
from rediffuse.rewards._loading import (
    LoadedReward,
    commit_of,
    folder_of,
    make_absolute,
    reading,
)
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


EMOJI = "emoji"
"""The value of `VlmReward.vlm` that selects the packaged judge of the embedded model's images."""


class AnswersQuestions(Protocol):
    """A model that answers questions about images."""

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[str]
    ) -> Sequence[Answer | str]:
        """Answers one question about each image. May raise RewardError."""
        ...


@dataclass(frozen=True)
class VisionLanguageModel:
    """A vision-language model in this process, with greedy decoding.

    Attributes:
        model: The model.
        processor: The processor of its inputs.
        max_tokens: The most tokens of an answer.
        jpeg_quality: Images are compressed to JPEG with this quality and decompressed before the
            model sees them; None: they are not.
    """

    model: PreTrainedModel
    processor: Any
    max_tokens: int
    jpeg_quality: int | None

    @classmethod
    def load(
        cls,
        key: str,
        place: str,
        revision: str | None,
        device: str,
        max_tokens: int,
        jpeg_quality: int | None,
    ) -> VisionLanguageModel:
        """Loads an image-text-to-text model of transformers, in fp32 on the CPU, else in fp16.

        Args:
            key: The configuration option that names the model, for error messages.
            place: A folder or a Hub id.
            revision: A commit, tag or branch of the Hub; None: the newest.
            device: Where the model is placed.
            max_tokens: See the class.
            jpeg_quality: See the class.

        Raises:
            ConfigError: If the model cannot be loaded.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        folder = folder_of(key, place, revision, ["*.txt", "*.model", "*.jinja"])
        dtype = torch.float32 if device == "cpu" else torch.float16
        with reading(key, folder):
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            model, info = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            refuse_incomplete(key, folder, model, info)
        processor.tokenizer.padding_side = "left"  # generation must start right after the question
        return cls(
            model.to(device).eval().requires_grad_(False), processor, max_tokens, jpeg_quality
        )

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        """Answers one question about each image."""
        shown = [
            image
            if self.jpeg_quality is None
            else Image.open(io.BytesIO(encoded(image, self.jpeg_quality)))
            for image in images
        ]
        conversations = [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": image},
                        {"type": "text", "text": question},
                    ],
                }
            ]
            for image, question in zip(shown, questions, strict=True)
        ]
        inputs = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"padding": True, "return_tensors": "pt"},
        ).to(self.model.device, self.model.dtype)
        with torch.no_grad():
            written = self.model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        answers: list[str] = self.processor.batch_decode(
            written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return [answer.strip() for answer in answers]


@dataclass(frozen=True)
class VlmReward:
    """The options of rewards that ask a vision-language model about images.

    Attributes:
        vlm: A Hub id or a folder of any image-text-to-text model of transformers; with `server`,
            the model's name there; or "emoji", the packaged judge of the embedded model's images,
            which answers with a description of the image.
        revision: A commit, tag or branch of the Hub; None: the newest.
        server: The URL, ending with /v1, of a server with the OpenAI chat protocol and images;
            None: the model runs in this process.
        key_variable: The environment variable that holds the server's key; None: no key.
        allow_plain_http: Whether questions and images may be sent unencrypted to another machine,
            in a network that you trust.
        concurrency: The most concurrent requests to the server.
        timeout_seconds: The time limit of one request.
        deadline_seconds: How long requests are retried while the server answers none of them. The
            missing answers have then timed out, and the run retries them as its own options say
            (scoring.max_failed, scoring.deadline_seconds).
        jpeg_quality: The model sees images as JPEG files of this quality; None: uncompressed.
        max_tokens: The most tokens of an answer.
        truncate: Whether pixels are truncated to 8 bits, as in the authors' TPU code, instead of
            rounded.
        empty_scores_zero: Whether an empty answer scores 0, as in the published code, instead of
            excluding the sample from training.
    """

    vlm: HubId = "llava-hf/llava-1.5-7b-hf"
    revision: Text | None = None
    server: Address | None = None
    key_variable: Variable | None = None
    allow_plain_http: Permit = False
    concurrency: Connection[PositiveInt] = 8
    timeout_seconds: Connection[Positive] = 120.0
    deadline_seconds: Connection[Positive] = 300.0
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | None = 80
    max_tokens: PositiveInt = 64
    truncate: bool = False
    empty_scores_zero: bool = False
    judges = "image"

    def __post_init__(self) -> None:
        if self.server is None and self.vlm != EMOJI:
            make_absolute(self, "vlm")
        elif self.server is not None:
            from rediffuse.rewards._http import refuse_unsafe

            refuse_unsafe("reward.server", self.server, self.key_variable, self.allow_plain_http)

    def load(self, device: str) -> LoadedReward[Any]:
        """Raises ConfigError if the model cannot be loaded, or the server does not have it."""
        model, pinned = self.load_model(device)
        return LoadedReward(model, self.scores, pinned)

    def load_model(self, device: str) -> tuple[AnswersQuestions, dict[str, str]]:
        """Returns the model and, if it was loaded from the Hub, its commit as the option
        `revision`.
        """
        if self.vlm == EMOJI:
            from rediffuse.rewards._emoji import Judge

            return Judge.load("trained", device), {}
        if self.server is None:
            model = VisionLanguageModel.load(
                "reward.vlm", self.vlm, self.revision, device, self.max_tokens, self.jpeg_quality
            )
            return model, commit_of(self.vlm, "revision", model.model)
        from rediffuse.rewards._http import Http
        from rediffuse.rewards._served import ServedModel

        times = self.timeout_seconds, self.deadline_seconds
        http = Http(self.server, self.key_variable, self.concurrency, *times)
        served = ServedModel(http, self.vlm, self.max_tokens, self.jpeg_quality)
        served.check()
        return served, {}

    def scores(self, model: Any, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Scores images (B, 3, H, W) in [0, 1]; implemented by each reward."""
        raise NotImplementedError

    def scores_zero(self, answer: Answer) -> bool:
        """Whether the answer is empty and therefore scores 0."""
        return self.empty_scores_zero and not answer.text and answer.status == "unparseable"

    def ask(
        self, model: AnswersQuestions, images: Tensor, questions: Sequence[str]
    ) -> list[Answer]:
        """Asks one question about each image.

        Args:
            model: The model.
            images: Shape (B, 3, H, W), in [0, 1].
            questions: B questions.

        Returns:
            B answers, without reasoning.
        """
        shown = pictures(truncated(images) if self.truncate else images)
        answers = model.ask(shown, questions)
        return [said(answer) if isinstance(answer, str) else answer for answer in answers]
