"""Two judges of the embedded model's pictures: small networks that name animal, count and activity
(pretraining/judge.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rediffuse.english import number_word, plural, with_article
from rediffuse.hub.weights import refuse_incomplete
from rediffuse.images import tensor
from rediffuse.rewards._loading import reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = Path(__file__).parent
SIZE_PIXELS = 64
NONE = "none"


@dataclass(frozen=True)
class Judge:
    """A network that names animal, count and activity of an embedded model's picture."""

    network: "PreTrainedModel"

    @classmethod
    def load(cls, which: Literal["trained", "held_out"], device: str) -> "Judge":
        """Half a million parameters each, of different architectures and seeds; nothing is trained
        on what the second says.
        """
        from transformers import AutoModelForImageClassification

        with reading("reward", WEIGHTS / which):
            network, info = AutoModelForImageClassification.from_pretrained(
                WEIGHTS / which,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
            refuse_incomplete("reward", WEIGHTS / which, network, info)
        return cls(network.to(device).eval().requires_grad_(False))

    @cached_property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """What it tells apart, by attribute: animal, count, activity; in the order of the network's
        outputs.
        """
        spelt = [
            str(self.network.config.id2label[i]).split(": ")
            for i in range(self.network.config.num_labels)
        ]
        return {
            attribute: [name for _, name in group]
            for attribute, group in groupby(spelt, lambda each: each[0])
        }

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """images (B, 3, H, W) in [0, 1] -> log-probabilities (B, labels), by attribute, on the
        host. Gradients flow to images that require them.
        """
        logits = self.network(self._pixel_values(images)).logits.float().cpu()
        parts = logits.split([len(names) for names in self.labels.values()], 1)
        return {
            attribute: part.log_softmax(1)
            for attribute, part in zip(self.labels, parts, strict=True)
        }

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> (B, D), on the host: what its first block sees, averaged
        over the picture. The last sees the animal alone, however plain the ground has become.
        """
        seen = self.network.base_model(
            self._pixel_values(images), output_hidden_states=True
        ).hidden_states[1]
        pooled: Tensor = seen.float().mean((2, 3)).cpu()
        return pooled

    def _pixel_values(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (SIZE_PIXELS, SIZE_PIXELS):
            images = F.interpolate(
                images, (SIZE_PIXELS, SIZE_PIXELS), mode="bilinear", antialias=True
            )
        return images.to(self.network.device) * 2 - 1

    def captions(self, log_probs: Mapping[str, Tensor]) -> list[str]:
        """The likeliest of each attribute, as a caption: "six cats", "a cat riding a bike"."""
        best = [
            [names[i] for i in log_probs[attribute].argmax(1).tolist()]
            for attribute, names in self.labels.items()
        ]
        return [_caption(*each) for each in zip(*best, strict=True)]

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        """As a vision-language model is asked: how many there are it says in a word; to all else,
        what is in the picture.
        """
        log_probs = self(torch.stack([tensor(image) for image in images]))
        counts = [self.labels["count"][i] for i in log_probs["count"].argmax(1).tolist()]
        answers = zip(questions, counts, self.captions(log_probs), strict=True)
        return [
            number_word(count) if "how many" in question.lower() else caption
            for question, count, caption in answers
        ]


def _caption(animal: str, count: str, activity: str) -> str:
    thing = "thing" if animal == NONE else animal
    who = with_article(thing) if count == "1" else f"{number_word(count)} {plural(thing)}"
    return who if activity == NONE else f"{who} {activity}"
