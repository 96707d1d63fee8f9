"""What is written in pictures, as RapidOCR reads it: its networks come with its package, and
nothing is fetched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.images import pictures

MODELS = {"Det": "PP-OCRv6_det_small.onnx", "Rec": "PP-OCRv6_rec_small.onnx"}
SMALLEST_PIXELS = 128
"""Of the shorter side: what is smaller is enlarged; a border around it costs hits
(benchmarks/ocr.py).
"""
SHORT = 3
SURE = 0.95
"""An eye, a chess-board or a wave looks like a letter or two, hardly like three: so fewer than
SHORT count from here on.
"""


class TextLine(NamedTuple):
    """confidence: in [0, 1], the mean over the letters."""

    text: str
    confidence: float

    def counts(self, min_confidence: float) -> bool:
        """Whether it is writing, and not a picture's own lines: a square is 口 to a network that
        knows Chinese.
        """
        letters = [sign for sign in self.text if sign.isalnum()]
        if len(letters) >= SHORT:
            return self.confidence >= min_confidence
        return any(sign.isascii() for sign in letters) and self.confidence >= max(
            SURE, min_confidence
        )


@dataclass(frozen=True)
class Reader:
    """engine: a rapidocr.RapidOCR, which any number of threads may ask."""

    engine: Any

    @classmethod
    def load(cls) -> "Reader":
        """On one thread of the CPU, wherever the run is. Raises ConfigError where packages or
        networks are not there.
        """
        try:
            import cv2
            import onnxruntime  # noqa: F401
            import rapidocr
            from rapidocr import RapidOCR
        except ImportError as error:
            raise ConfigError(
                f"reward: what reads text is not installed ({error}): pip install 'rediffuse[ocr]'"
            ) from error
        cv2.setNumThreads(1)  # else one a core, beside those of the run
        alone = {
            f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")
        }
        quiet = {"Global.log_level": "critical", "Global.text_score": 0.0}
        # else all is enlarged to 736 pixels: as good, and ten times as slow
        as_it_is = {"Det.limit_side_len": 32}
        engine = RapidOCR(
            params={
                **_paths(Path(rapidocr.__file__).parent / "models"),
                **alone,
                **quiet,
                **as_it_is,
            }
        )
        for writes in (False, True):  # each network is loaded when it is first asked
            engine(np.zeros((48, 48, 3), np.uint8), use_det=writes, use_cls=False)
        return cls(engine)

    def read(self, images: Tensor, min_confidence: float) -> list[str]:
        """images (B, 3, H, W) in [0, 1] -> what is written in each, line by line; "" where nothing
        is.
        """
        return [text_of(self.lines(picture), min_confidence) for picture in pictures(images)]

    def lines(self, picture: Image.Image) -> list[TextLine]:
        """From top to bottom, whatever the confidence."""
        found = self.engine(_enlarged(picture), use_det=True, use_cls=False)
        return [TextLine(*each) for each in zip(found.txts or (), found.scores or (), strict=True)]


def text_of(lines: Sequence[TextLine], min_confidence: float) -> str:
    """Returns the lines that are read with enough confidence, as one text."""
    return "; ".join(line.text.strip() for line in lines if line.counts(min_confidence))


def _paths(folder: Path) -> dict[str, str]:
    """By name, so that nothing is looked for on the network, and a reading means the same with any
    version of the package.
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
