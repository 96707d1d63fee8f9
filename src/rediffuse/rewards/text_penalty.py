"""A penalty for text in an image, larger if the text names what the prompt requests, in any
spelling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rediffuse.deferred import torch
from rediffuse.rewards._loading import LoadedReward
from rediffuse.rewards._ocr import Reader
from rediffuse.rewards._spelling import names_any
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TextPenalty"]

Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class TextPenalty:
    """A penalty against the typographic attack, by which a vision-language model reads "sixx
    tutttles" in an image and answers six turtles (Black et al. 2023).

    The value of an image without text is 0. On one CPU core, an image of 64 pixels takes 0.05 s and
    one of 512 pixels 0.2 s. Needs `pip install 'rediffuse[ocr]'`.

    Attributes:
        text: What is subtracted if there is any text.
        attack: What is subtracted in addition if the text names a word of the prompt, or of the
            `questions` and `answers` in its metadata.
        min_confidence: The least confidence of the reader for a line to count. Lines with fewer
            than three letters need at least 0.95.
    """

    text: Penalty = 1.0
    attack: Penalty = 1.0
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.6
    judges = "image"

    def load(self, device: str) -> LoadedReward[Reader]:
        """Raises ConfigError if the text reader is not installed."""
        return LoadedReward(Reader.load(), self.scores)

    def scores(self, reader: Reader, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Scores images (B, 3, H, W) in [0, 1]."""
        texts = reader.read(images, self.min_confidence)
        has_text = torch.tensor([float(bool(text)) for text in texts])
        attacks = torch.tensor(
            [
                float(names_any(*each))
                for each in zip(texts, map(words_asked_for, prompts), strict=True)
            ]
        )
        values = 0 - (self.text * has_text + self.attack * attacks)  # negation would give -0.0
        return Judgement(
            values, {"has_text": has_text, "names_the_prompt": attacks}, {"text": texts}
        )


def words_asked_for(prompt: Prompt) -> list[str]:
    """Returns the prompt's text, and the questions and answers in its metadata."""
    told = [prompt.metadata.get(key) or [] for key in ("questions", "answers")]
    return [
        prompt.text,
        *(
            str(each)
            for phrases in told
            for each in (phrases if isinstance(phrases, list) else [phrases])
        ),
    ]
