"""Numbers: (B, D), such as an action, a plan or a design, saved as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.config.schema import Positive
from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Vector"]

SIDE = 64
"""The width and height of a preview in pixels."""


@dataclass(frozen=True)
class Vector:
    """Arrays of numbers (B, *S), in any range.

    Attributes:
        largest: The absolute value at which a bar of a preview has its full height.
    """

    largest: Positive = 3.0
    name = "vector"
    suffix = ".json"

    def preview(self, samples: Tensor) -> Tensor:
        """Returns bar charts (B, 3, 64, 64) in [0, 1], with bars up for positive and down for
        negative values.
        """
        values = samples.flatten(1)
        columns = values[:, torch.arange(SIDE) * values.shape[1] // SIDE] / self.largest
        height = torch.linspace(1, -1, SIDE).view(1, -1, 1)
        level = columns.clamp(-1, 1)[:, None]
        filled = ((height * level > 0) & (height.abs() <= level.abs())).float()
        shown = (1 - 0.8 * filled).where(values.isfinite().all(1).view(-1, 1, 1), torch.nan)
        return shown[:, None].expand(-1, 3, -1, -1)

    def quantized(self, samples: Tensor) -> Tensor:
        return samples

    def save(self, sample: Tensor, stem: Path) -> None:
        """Saves shape and values as JSON; values that are not finite become null."""
        values = [value if math.isfinite(value) else None for value in sample.flatten().tolist()]
        stem.with_suffix(self.suffix).write_text(
            json.dumps({"shape": list(sample.shape), "values": values})
        )
