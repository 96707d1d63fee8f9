"""Fourteen animals that are not among the paper's 45, to test generalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.prompts._animals import UNSEEN
from rediffuse.prompts._draw import nouns, pick
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["UnseenAnimals"]


@dataclass(frozen=True)
class UnseenAnimals:
    """Fourteen animals that are not among the 45 of `animals`. The embedded model knows them from
    its pretraining.

    Attributes:
        article: Whether prompts have an article, "a penguin".
        balanced: Whether each animal is drawn equally often, instead of independently.
    """

    article: bool = True
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(nouns(UNSEEN, article=self.article), n, generator, balanced=self.balanced)
