"""Each of the 45 common animals at one of three activities: the paper's prompt-image alignment
task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.prompts._animals import NAMES
from rediffuse.prompts._draw import doing, pick
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["AnimalsActivities"]

ACTIVITIES = ("washing the dishes", "riding a bike", "playing chess")


@dataclass(frozen=True)
class AnimalsActivities:
    """The 45 animals of the paper, each with its three activities.

    Attributes:
        alone: Whether each animal without an activity, "a cat", is a prompt too.
        balanced: Whether each of the 135 (or 180) prompts is drawn equally often in an epoch,
            instead of independently.
    """

    alone: bool = False
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        deeds = ("", *ACTIVITIES) if self.alone else ACTIVITIES
        return pick(doing(NAMES, deeds), n, generator, balanced=self.balanced)
