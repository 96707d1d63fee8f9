"""Numbers: (B, D), such as an action, a plan or a design, kept as JSON."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rediffuse.config.schema import Positive

__all__ = ["Vector"]

SIDE = 64
"""Pixels of a preview."""


@dataclass(frozen=True)
class Vector:
    """Samples (B, *S) of any numbers.

    Attributes:
        largest: the absolute value that a bar of full height shows in a preview.
    """

    largest: Positive = 3.0
    name = "vector"
    suffix = ".json"

    def preview(self, samples: Tensor) -> Tensor:
        """A bar for each number, up from the middle where it is positive and down where it is
        negative: (B, 3, 64, 64).
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
        """Values that are not finite are null."""
        values = [value if math.isfinite(value) else None for value in sample.flatten().tolist()]
        stem.with_suffix(self.suffix).write_text(
            json.dumps({"shape": list(sample.shape), "values": values})
        )
