"""Fourteen animals that are not among the paper's 45, with three activities other than the
paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.prompts._animals import UNSEEN, UNSEEN_ACTIVITIES
from rediffuse.prompts._draw import doing, pick
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["UnseenAnimalsActivities"]


@dataclass(frozen=True)
class UnseenAnimalsActivities:
    """Fourteen animals with three activities, none of which occur in the paper's prompts.

    Attributes:
        balanced: Whether each of the 42 prompts is drawn equally often, instead of independently.
    """

    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(doing(UNSEEN, UNSEEN_ACTIVITIES), n, generator, balanced=self.balanced)
