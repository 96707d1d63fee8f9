"""A vision-language model that is asked about images: in this process, or behind a server."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

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
    from transformers import PreTrainedModel


EMOJI = "emoji"


class AnswersQuestions(Protocol):
    """A vision-language model, wherever it is."""

    def ask(
        self, images: Sequence[Image.Image], questions: Sequence[str]
    ) -> Sequence[Answer | str]: ...


@dataclass(frozen=True)
class VisionLanguageModel:
    """Greedy answers of at most `max_tokens`. What it is shown has been a JPEG file of that
    quality; None: it has not.
    """

    model: "PreTrainedModel"
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
    ) -> "VisionLanguageModel":
        """place: a folder or an id of the Hub, of any image-text-to-text model. Raises ConfigError
        under `key`.
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
        processor.tokenizer.padding_side = (
            "left"  # so that every answer begins where the questions end
        )
        return cls(
            model.to(device).eval().requires_grad_(False), processor, max_tokens, jpeg_quality
        )

    @torch.no_grad()
    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        """A question to each image -> the answers."""
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
        written = self.model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)
        answers: list[str] = self.processor.batch_decode(
            written[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return [answer.strip() for answer in answers]


@dataclass(frozen=True)
class VlmReward:
    """vlm: an id of the Hub, or a folder, of any model that transformers can ask about an image; of
    a server, its name there; or emoji, the judge of the embedded model's pictures, which ships
    inside and answers all with what is in the picture.

    server: the address, with /v1, of one that speaks the OpenAI chat protocol with images; None:
        the model is in this process.
    key_variable: the name of the environment variable that holds the server's key.
    allow_plain_http: to a server elsewhere, of a network that you trust.
    concurrency: questions on their way to the server at a time.
    timeout_seconds: of a request
    deadline_seconds: for how long the server is asked again without an answer to anything; what is
        missing then has timed out, and the run's own patience begins (scoring.max_failed,
        scoring.deadline_seconds).
    jpeg_quality: of the file as which the image is shown; None: as it is.
    max_tokens: of an answer.
    truncate: images to 8 bits by dropping the fraction, as the authors' TPU code, instead of
        rounding.
    empty_scores_zero: as in the published code, instead of leaving the sample out of training.
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
        """Raises ConfigError for a model that cannot be had, or a server without it."""
        model, pinned = self.load_model(device)
        return LoadedReward(model, self.scores, pinned)

    def load_model(self, device: str) -> tuple[AnswersQuestions, dict[str, str]]:
        """Returns the model that is asked, and the commit of it, if it is one of the Hub."""
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
        """Scores images (B, 3, H, W) in [0, 1]; what a reward of this kind writes."""
        raise NotImplementedError

    def scores_zero(self, answer: Answer) -> bool:
        """Whether it says nothing, and that counts."""
        return self.empty_scores_zero and not answer.text and answer.status == "unparseable"

    def ask(
        self, model: AnswersQuestions, images: Tensor, questions: Sequence[str]
    ) -> list[Answer]:
        """images (B, 3, H, W) in [0, 1], a question each -> the answers."""
        shown = pictures(truncated(images) if self.truncate else images)
        answers = model.ask(shown, questions)
        return [said(answer) if isinstance(answer, str) else answer for answer in answers]
