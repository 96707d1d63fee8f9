"""Moving pictures: (B, F, 3, H, W) in [0, 1], kept as animated WebP."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rediffuse.config.schema import Positive
from rediffuse.images import picture, rounded

__all__ = ["Video"]

SHOWN = 4
"""Frames of a preview, in two rows of two."""


@dataclass(frozen=True)
class Video:
    """Samples (B, F, 3, H, W) in [0, 1]: F frames, one after another.

    Attributes:
        frames_per_second: how fast the file plays.
    """

    frames_per_second: Positive = 8.0
    name = "video"
    suffix = ".webp"

    def preview(self, samples: Tensor) -> Tensor:
        """Four frames, evenly spaced in time, in reading order: (B, 3, 2 H, 2 W)."""
        at = torch.linspace(0, samples.shape[1] - 1, SHOWN).round().long()
        first, second, third, fourth = samples[:, at].unbind(1)
        return torch.cat([torch.cat([first, second], 3), torch.cat([third, fourth], 3)], 2)

    def quantized(self, samples: Tensor) -> Tensor:
        return rounded(samples)

    def save(self, sample: Tensor, stem: Path) -> None:
        first, *others = [picture(frame) for frame in sample]
        duration = round(1000 / self.frames_per_second)
        first.save(
            stem.with_suffix(self.suffix),
            save_all=True,
            append_images=others,
            duration=duration,
            loop=0,
            lossless=True,
        )
