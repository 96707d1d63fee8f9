"""Videos: (B, F, 3, H, W) in [0, 1], saved as animated WebP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.config.schema import Positive
from rediffuse.deferred import torch
from rediffuse.images import picture, rounded

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Video"]

SHOWN = 4
"""The number of frames in a preview, arranged in two rows of two."""


@dataclass(frozen=True)
class Video:
    """Videos (B, F, 3, H, W) in [0, 1] of F frames.

    Attributes:
        frames_per_second: The playback speed of the saved file.
    """

    frames_per_second: Positive = 8.0
    name = "video"
    suffix = ".webp"

    def preview(self, samples: Tensor) -> Tensor:
        """Returns four frames, evenly spaced in time and in reading order, as images (B, 3, 2 H, 2
        W).
        """
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
