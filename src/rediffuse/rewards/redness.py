"""The excess of red over green and blue in an image, quick and easy to see: for tests and first
steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Redness"]


@dataclass(frozen=True)
class Redness:
    """The mean of red minus the mean of green and blue."""

    judges = "image"
    differentiable = True

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Returns values (B,) in [-1, 1]."""
        red, green, blue = images.mean((2, 3)).unbind(1)
        return red - (green + blue) / 2
