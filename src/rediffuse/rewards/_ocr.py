"""Text recognition in images by RapidOCR, whose package contains the networks, so that nothing is
downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from rediffuse.errors import ConfigError
from rediffuse.images import pictures

if TYPE_CHECKING:
    from torch import Tensor

MODELS = {"Det": "PP-OCRv6_det_small.onnx", "Rec": "PP-OCRv6_rec_small.onnx"}
"""The files of the networks for detection and recognition."""
SMALLEST_PIXELS = 128
"""Images with a smaller shorter side are enlarged to it. Padding them instead misses more text
(benchmarks/ocr.py).
"""
SHORT = 3
SURE = 0.95
"""The least confidence of lines with fewer than SHORT letters. An eye, a chess-board or a wave may
resemble one or two letters, but hardly three.
"""


class TextLine(NamedTuple):
    """A line of recognised text.

    Attributes:
        text: The text.
        confidence: In [0, 1], the mean over the characters.
    """

    text: str
    confidence: float

    def counts(self, min_confidence: float) -> bool:
        """Whether the line is text rather than a shape that resembles a few letters.

        Lines with fewer than SHORT letters need an ASCII letter and a confidence of SURE: the
        network also knows Chinese, and reads a square as 口.
        """
        letters = [sign for sign in self.text if sign.isalnum()]
        if len(letters) >= SHORT:
            return self.confidence >= min_confidence
        return any(sign.isascii() for sign in letters) and self.confidence >= max(
            SURE, min_confidence
        )


@dataclass(frozen=True)
class Reader:
    """A loaded text reader.

    Attributes:
        engine: A rapidocr.RapidOCR, which may be called from several threads at once.
    """

    engine: Any

    @classmethod
    def load(cls) -> Reader:
        """Loads the networks, which use one CPU thread whatever the device of the run. Raises
        ConfigError if a package or a network file is missing.
        """
        try:
            import cv2
            import onnxruntime  # noqa: F401
            import rapidocr
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ConfigError(
                f"reward: the OCR library is not installed ({error}): pip install 'rediffuse[ocr]'"
            ) from error
        cv2.setNumThreads(1)  # by default one for each core, in addition to the run's threads
        alone = {
            f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")
        }
        quiet = {"Global.log_level": "critical", "Global.text_score": 0.0}
        # the default enlarges all images to 736 pixels: as accurate, but ten times slower
        as_it_is = {"Det.limit_side_len": 32}
        engine = RapidOCR(
            params={
                **_paths(Path(rapidocr.__file__).parent / "models"),
                **alone,
                **quiet,
                **as_it_is,
            }
        )
        for writes in (False, True):  # each network is loaded at its first use
            engine(np.zeros((48, 48, 3), np.uint8), use_det=writes, use_cls=False)
        return cls(engine)

    def read(self, images: Tensor, min_confidence: float) -> list[str]:
        """Returns the text in each image, its lines joined by "; "; empty if there is none.

        Args:
            images: Shape (B, 3, H, W), in [0, 1].
            min_confidence: The least confidence of a line; see `TextLine.counts`.
        """
        return [text_of(self.lines(picture), min_confidence) for picture in pictures(images)]

    def lines(self, picture: Image.Image) -> list[TextLine]:
        """Returns all lines from top to bottom, regardless of their confidence."""
        found = self.engine(_enlarged(picture), use_det=True, use_cls=False)
        return [TextLine(*each) for each in zip(found.txts or (), found.scores or (), strict=True)]


def text_of(lines: Sequence[TextLine], min_confidence: float) -> str:
    """Joins the lines with enough confidence to one text, separated by "; "."""
    return "; ".join(line.text.strip() for line in lines if line.counts(min_confidence))


def _paths(folder: Path) -> dict[str, str]:
    """Returns the engine's options with the paths of the networks. With explicit paths, nothing is
    downloaded, and results do not depend on the package's version.
    """
    for file in MODELS.values():
        if not (folder / file).is_file():
            raise ConfigError(
                f"reward: this rapidocr has no {file}: pip install 'rapidocr==3.10.0'"
            )
    return {f"{part}.model_path": str(folder / file) for part, file in MODELS.items()}


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = SMALLEST_PIXELS / min(picture.size)
    if factor <= 1:
        return picture
    width, height = (round(factor * side) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)
