"""Fourteen animals that are not among the 45, to see whether what was learned carries over."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rediffuse.prompts._animals import UNSEEN
from rediffuse.prompts._draw import nouns, pick
from rediffuse.types import Prompt

__all__ = ["UnseenAnimals"]


@dataclass(frozen=True)
class UnseenAnimals:
    """Not among the 45 of `animals`; the embedded model knows them from its pretraining, real
    models do too.

    article: "a penguin" and "an owl"
    balanced: every animal equally often, instead of independent draws.
    """

    article: bool = True
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(nouns(UNSEEN, article=self.article), n, generator, balanced=self.balanced)
