"""Forty everyday objects, none of them alive, to see whether what was learned on animals carries
over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rediffuse.prompts._draw import nouns, pick
from rediffuse.types import Prompt

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
    """article: "a car" and "an apple"
    balanced: every object equally often, instead of independent draws.
    """

    article: bool = True
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(nouns(NAMES, article=self.article), n, generator, balanced=self.balanced)
