"""The 398 animals of ImageNet, by its labels ("tench, Tinca tinca"): the paper's JPEG tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rediffuse.prompts._draw import pick
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["ImagenetAnimals"]

LABELS = Path(__file__).with_suffix(".txt")
"""The full synset labels of ImageNet's first 398 classes, in their order."""
DOGS = slice(151, 269)
"""The labels from Chihuahua to Mexican hairless."""


@dataclass(frozen=True)
class ImagenetAnimals:
    """The labels of ImageNet's animals.

    Attributes:
        only: "dogs" restricts the prompts to the 118 labels that the authors' code draws for its
            task on dogs.
        balanced: Whether each label is drawn equally often in an epoch, instead of independently.
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
