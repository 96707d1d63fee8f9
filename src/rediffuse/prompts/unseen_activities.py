"""The 45 common animals with three activities other than the paper's, to test generalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.prompts._animals import NAMES, UNSEEN_ACTIVITIES
from rediffuse.prompts._draw import doing, pick
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["UnseenActivities"]


@dataclass(frozen=True)
class UnseenActivities:
    """The 45 animals playing the guitar, eating a pizza and reading a book.

    Attributes:
        balanced: Whether each of the 135 prompts is drawn equally often, instead of independently.
    """

    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return pick(doing(NAMES, UNSEEN_ACTIVITIES), n, generator, balanced=self.balanced)
