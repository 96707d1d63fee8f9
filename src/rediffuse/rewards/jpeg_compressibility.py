"""An image's reward is minus its size as a JPEG file, in kB: smooth images win."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from rediffuse.rewards._jpeg import jpeg_kilobytes
from rediffuse.types import Prompt

__all__ = ["JpegCompressibility"]


@dataclass(frozen=True)
class JpegCompressibility:
    """quality: of PIL's JPEG encoder, 95 in DDPO's task (Black et al. 2023, sec. 5.1)."""

    quality: Annotated[int, Field(ge=1, le=100)] = 95

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        return -jpeg_kilobytes(images, self.quality)
