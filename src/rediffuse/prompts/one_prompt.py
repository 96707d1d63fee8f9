"""A single prompt that is drawn every time: the paper's code trains on "a dog" alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.config.schema import Text
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["OnePrompt"]


@dataclass(frozen=True)
class OnePrompt:
    """A single prompt.

    Attributes:
        text: The text of the prompt.
    """

    text: Text = "a dog"

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return [Prompt(self.text)] * n
