"""The 45 common animals at three activities other than the paper's, to see whether what was learned
carries over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rediffuse.prompts._animals import NAMES, UNSEEN_ACTIVITIES
from rediffuse.prompts._draw import doing, pick
from rediffuse.types import Prompt

__all__ = ["UnseenActivities"]


@dataclass(frozen=True)
class UnseenActivities:
    """Playing the guitar, eating a pizza, reading a book: beside the three of `animals_activities`.

    balanced: each of the 135 equally often, instead of independent draws.
    """

    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(doing(NAMES, UNSEEN_ACTIVITIES), n, generator, balanced=self.balanced)
