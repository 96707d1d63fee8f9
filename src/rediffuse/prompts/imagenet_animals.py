"""The 398 animals of ImageNet, in its words ("tench, Tinca tinca"): the paper's JPEG tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from rediffuse.prompts._draw import pick
from rediffuse.types import Prompt

__all__ = ["ImagenetAnimals"]

LABELS = Path(__file__).with_suffix(".txt")
"""The full synset labels of ImageNet's first 398 classes, in their order."""
DOGS = slice(151, 269)


@dataclass(frozen=True)
class ImagenetAnimals:
    """only: dogs, the 118 labels from Chihuahua to Mexican hairless that the authors' code draws
    for its task of dogs.
    balanced: each equally often in an epoch, instead of independent draws.
    """

    only: Literal["animals", "dogs"] = "animals"
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(
            _prompts()[DOGS if self.only == "dogs" else slice(None)],
            n,
            generator,
            balanced=self.balanced,
        )


@cache
def _prompts() -> list[Prompt]:
    return [Prompt(label) for label in LABELS.read_text(encoding="utf-8").splitlines()]
