"""Forty everyday objects, to test whether training on animals generalises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.prompts._draw import nouns, pick
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["EverydayObjects"]

NAMES = (
    "apple", "banana", "car", "bus", "bicycle", "airplane", "boat", "rocket", "house", "tree",
    "sunflower", "rose", "cactus", "mushroom", "star", "moon", "heart", "balloon", "gift", "ball",
    "clock", "umbrella", "key", "hat", "trumpet", "drum", "camera", "cup", "cake", "hamburger",
    "egg", "carrot", "tomato", "strawberry", "lemon", "hammer", "pencil", "chair", "crown",
    "pumpkin",
)  # fmt: skip


@dataclass(frozen=True)
class EverydayObjects:
    """Forty everyday objects, such as "a car" or "an apple".

    Attributes:
        article: Whether prompts have an article, "a car".
        balanced: Whether each object is drawn equally often, instead of independently.
    """

    article: bool = True
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(nouns(NAMES, article=self.article), n, generator, balanced=self.balanced)
