"""Two judges of the embedded model's images: small classifiers of animal, count and activity, which
pretraining/judge.py trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from rediffuse.deferred import torch
from rediffuse.english import number_word, plural, with_article
from rediffuse.hub.weights import refuse_incomplete
from rediffuse.images import tensor
from rediffuse.rewards._loading import reading

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

WEIGHTS = Path(__file__).parent
SIZE_PIXELS = 64
NONE = "none"


@dataclass(frozen=True)
class Judge:
    """A classifier of animal, count and activity in the embedded model's images.

    Attributes:
        network: The network, with one output for each label of each attribute.
    """

    network: PreTrainedModel

    @classmethod
    def load(cls, which: Literal["trained", "held_out"], device: str) -> Judge:
        """Loads one of the two judges.

        They have half a million parameters each, and different architectures and seeds. No policy
        is trained on the output of the held-out one.
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
        """The labels of each attribute (animal, count, activity), in the order of the network's
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
        """Classifies images; gradients flow to images that require them.

        Args:
            images: Shape (B, 3, H, W), in [0, 1].

        Returns:
            The log-probabilities (B, labels) of each attribute, on the CPU.
        """
        logits = self.network(self._pixel_values(images)).logits.float().cpu()
        parts = logits.split([len(names) for names in self.labels.values()], 1)
        return {
            attribute: part.log_softmax(1)
            for attribute, part in zip(self.labels, parts, strict=True)
        }

    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D), on the CPU, of images (B, 3, H, W) in [0, 1]: the output of the
        first block, averaged over positions.

        The last block represents the animal only, so that it would not show a background that has
        become plain.
        """
        with torch.no_grad():
            seen = self.network.base_model(
                self._pixel_values(images), output_hidden_states=True
            ).hidden_states[1]
        pooled: Tensor = seen.float().mean((2, 3)).cpu()
        return pooled

    def _pixel_values(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (SIZE_PIXELS, SIZE_PIXELS):
            images = torch.nn.functional.interpolate(
                images, (SIZE_PIXELS, SIZE_PIXELS), mode="bilinear", antialias=True
            )
        return images.to(self.network.device) * 2 - 1

    def captions(self, log_probs: Mapping[str, Tensor]) -> list[str]:
        """Returns the most likely labels as captions: "six cats", "a cat riding a bike".

        Args:
            log_probs: The log-probabilities (B, labels) of each attribute.
        """
        best = [
            [names[i] for i in log_probs[attribute].argmax(1).tolist()]
            for attribute, names in self.labels.items()
        ]
        return [_caption(*each) for each in zip(*best, strict=True)]

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        """Answers one question about each image, like a vision-language model: a question with "how
        many" by the count in a word, any other by the caption.
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
