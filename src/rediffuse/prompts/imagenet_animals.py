"""The 398 animals of ImageNet, in its words ("tench, Tinca tinca"): the paper's JPEG tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from rediffuse.prompts._draw import chosen
from rediffuse.types import Prompt

__all__ = ["ImagenetAnimals"]

LABELS = Path(__file__).with_suffix(".txt")
"""The full synset labels of ImageNet's first 398 classes, in their order."""


@dataclass(frozen=True)
class ImagenetAnimals:
    """balanced: each of the 398 equally often in an epoch, instead of independent draws."""

    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return chosen(_prompts(), n, generator, balanced=self.balanced)


@cache
def _prompts() -> list[Prompt]:
    return [Prompt(label) for label in LABELS.read_text(encoding="utf-8").splitlines()]
