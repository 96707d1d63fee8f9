"""Text in the picture, held against it; more so where it names what was asked for, however it is
spelt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from rediffuse.rewards._loading import LoadedReward
from rediffuse.rewards._ocr import Reader
from rediffuse.rewards._spelling import names_any
from rediffuse.types import Judgement, Prompt

__all__ = ["TextPenalty"]

Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class TextPenalty:
    """0 where nothing is written, -`text` where something is, and `attack` less where that names a
    word of the prompt, or of the `questions` and `answers` of its metadata: the typographic attack,
    by which a vision-language model reads "sixx tutttles" and answers six turtles (Black et al.
    2023).

    min_confidence: of the reader, in lines of three letters and more; of fewer, 0.95.
    On one core: 0.05 s an image of 64 pixels, 0.2 s of 512. Needs `pip install 'rediffuse[ocr]'`.
    """

    text: Penalty = 1.0
    attack: Penalty = 1.0
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.6
    judges = "image"

    def load(self, device: str) -> LoadedReward[Reader]:
        """Raises ConfigError where the reader is not installed."""
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
        values = 0 - (self.text * has_text + self.attack * attacks)  # and not -0.0
        return Judgement(
            values, {"has_text": has_text, "names_the_prompt": attacks}, {"text": texts}
        )


def words_asked_for(prompt: Prompt) -> list[str]:
    """All that a reader of the picture may have been asked."""
    told = [prompt.metadata.get(key) or [] for key in ("questions", "answers")]
    return [
        prompt.text,
        *(
            str(each)
            for phrases in told
            for each in (phrases if isinstance(phrases, list) else [phrases])
        ),
    ]
