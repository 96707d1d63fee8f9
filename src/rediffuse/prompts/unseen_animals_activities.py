"""Fourteen animals that are not among the 45 at three activities other than the paper's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rediffuse.prompts._animals import UNSEEN, UNSEEN_ACTIVITIES
from rediffuse.prompts._draw import doing, pick
from rediffuse.types import Prompt

__all__ = ["UnseenAnimalsActivities"]


@dataclass(frozen=True)
class UnseenAnimalsActivities:
    """balanced: each of the 42 equally often, instead of independent draws."""

    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(doing(UNSEEN, UNSEEN_ACTIVITIES), n, generator, balanced=self.balanced)
