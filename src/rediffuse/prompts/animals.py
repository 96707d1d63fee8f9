"""The 45 common animals of DDPO's aesthetic and alignment tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.prompts._animals import NAMES
from rediffuse.prompts._draw import nouns, pick
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["Animals"]


@dataclass(frozen=True)
class Animals:
    """The 45 animals of the paper.

    Attributes:
        article: Whether prompts have an article, "a cat"; the published aesthetic task uses "cat".
        balanced: Whether each animal is drawn equally often in an epoch, instead of independently.
    """

    article: bool = True
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(nouns(NAMES, article=self.article), n, generator, balanced=self.balanced)
