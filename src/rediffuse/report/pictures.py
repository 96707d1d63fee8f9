"""The evaluation images of a run, compressed for a page: each stage of training is one sheet of
tiles.
"""

import io
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from PIL import Image

from rediffuse.report.charts import data_uri

MOST_FRAMES = 40
"""The most stages that the slider shows, besides those that the verdict names."""
MOST_BYTES = 150_000
"""The target size of a frame; base64 encoding adds a third."""
LARGEST_TILE, SMALLEST_TILE = 224, 64
"""Tiles are scaled to at most the first size in pixels, or to the second if a frame is too
large.
"""
LONGEST_INPUT = 256
"""The largest width of an input image in pixels."""
QUALITIES = (90, 75, 60, 40, 20)
LONGEST_SHEET = 16383
"""The largest width and height of a WebP image in pixels."""
UNREADABLE = (OSError, SyntaxError, ValueError, ZeroDivisionError, Image.DecompressionBombError)
"""Exceptions of PIL for images that cannot be read."""
INSET = 1.02
"""Tiles are magnified by this factor within their frame, so that no edge of a neighbour is
visible.
"""


@dataclass(frozen=True)
class Sheet:
    """Images arranged in columns and rows of one image.

    Attributes:
        uri: The image as a data URI.
        columns: The number of columns.
        rows: The number of rows.
        tile_pixels: The side of a tile.
    """

    uri: str
    columns: int
    rows: int
    tile_pixels: int

    @property
    def size(self) -> str:
        """The CSS `background-size` of the sheet behind a tile."""
        return f"{100 * INSET * self.columns:.2f}% {100 * INSET * self.rows:.2f}%"

    @property
    def pixels(self) -> bool:
        """Whether tiles are so small that pixels should be displayed without smoothing."""
        return self.tile_pixels <= 128

    def place(self, column: int, row: int) -> str:
        """Returns the CSS `background-position` that shows a tile."""
        return f"{_share(column, self.columns):.4f}% {_share(row, self.rows):.4f}%"


@dataclass(frozen=True)
class Stage:
    """The grid of evaluation images after a number of epochs."""

    epoch: int
    grid: Path


@dataclass(frozen=True)
class Frame:
    """A stage as the page displays it.

    Attributes:
        name: The CSS class of its tiles.
        epoch: The number of completed epochs.
        sheet: Its images.
    """

    name: str
    epoch: int
    sheet: Sheet


Some = TypeVar("Some", Stage, Frame)


def stages(samples: Path) -> list[Stage]:
    """Returns the stages in a run's samples folder, ordered by epoch."""
    found = [
        Stage(int(grid.parent.name.removeprefix("epoch-")), grid)
        for grid in samples.glob("epoch-[0-9]*/grid.png")
    ]
    return sorted(found, key=lambda stage: stage.epoch)


def frames(found: Sequence[Stage], num_prompts: int, kind: str = "epoch") -> list[Frame]:
    """Compresses the images of stages; unreadable images, such as those being written, are left
    out.

    Args:
        found: The stages.
        num_prompts: The number of columns; 0: derived from the image sizes.
        kind: The prefix of the frames' names.
    """
    shown = []
    for stage in found:
        with suppress(*UNREADABLE):
            columns = num_prompts or _columns(stage.grid)
            picture = sheet(stage.grid, stage.grid.stat().st_mtime_ns, columns)
            shown.append(Frame(f"{kind}-{stage.epoch}", stage.epoch, picture))
    return shown


def evenly(found: Sequence[Some], most: int) -> list[Some]:
    """Selects at most `most` evenly spaced elements, including the first and the last."""
    last = len(found) - 1
    places = (
        dict.fromkeys(round(i * last / (most - 1)) for i in range(most))
        if last > 0
        else range(len(found))
    )
    return [found[place] for place in places]


def milestones(found: Sequence[Stage], most: int, also: Collection[int] = ()) -> list[Stage]:
    """Selects stages at regular intervals, the last one, and the first at or after each epoch of
    `also`.

    The interval is the smallest power of two that gives at most `most` stages. When a run grows,
    its page therefore keeps showing stages that it showed before.
    """
    step, last = 1, len(found) - 1
    while len(found) > most * step:
        step *= 2
    places = {*range(0, len(found), step), *([last] if found else [])}
    places |= {
        next((i for i, stage in enumerate(found) if stage.epoch >= epoch), last)
        for epoch in also
        if found
    }
    return [found[place] for place in sorted(places)]


@lru_cache(maxsize=2 * MOST_FRAMES)
def sheet(path: Path, written: int, columns: int) -> Sheet:
    """Compresses a grid of square images. The result is cached, since pages are rendered
    repeatedly.

    Args:
        path: The grid's file.
        written: The file's modification time, which is part of the cache's key.
        columns: The number of columns.
    """
    with Image.open(path) as opened:
        whole = opened.convert("RGB")
    side = whole.width // columns
    rows = max(1, whole.height // side)
    tile = min(side, LARGEST_TILE, LONGEST_SHEET // max(columns, rows))
    scaled = _scaled(whole, columns * tile, rows * tile)
    content = next(
        (c for c in (webp(scaled, quality) for quality in QUALITIES) if len(c) <= MOST_BYTES), None
    )
    if content is None:
        tile = min(tile, SMALLEST_TILE)
        content = webp(_scaled(whole, columns * tile, rows * tile), QUALITIES[-1])
    return Sheet(data_uri("image/webp", content), columns, rows, tile)


def _scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2)


def tiles(stage: Stage, num_prompts: int, most: int) -> list[Image.Image]:
    """Returns the first image of each of the first `most` prompts."""
    with Image.open(stage.grid) as opened:
        whole = opened.convert("RGB")
    columns = num_prompts or _columns(stage.grid)
    side = whole.width // columns
    return [whole.crop((i * side, 0, (i + 1) * side, side)) for i in range(min(most, columns))]


def webp(image: Image.Image, quality: int) -> bytes:
    """Encodes an image as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=2)
    return buffer.getvalue()


def embedded(image: Image.Image) -> str:
    """Encodes an image losslessly, as the data URI of a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return data_uri("image/png", buffer.getvalue())


def inputs(samples: Path, columns: int) -> list[str]:
    """Returns a thumbnail of the input images of each column's prompt as a data URI; empty if there
    is none or it cannot be read.
    """
    found = [""] * columns
    for column in range(columns):
        place = samples / "inputs" / f"{column:03d}.png"
        with suppress(*UNREADABLE), Image.open(place) as opened:
            opened.thumbnail((LONGEST_INPUT, SMALLEST_TILE))
            found[column] = embedded(opened.convert("RGB"))
    return found


def _share(at: int, of: int) -> float:
    """Returns the percentage for `background-position` that centres tile `at` in its frame."""
    return 100 * (at * INSET + (INSET - 1) / 2) / (of * INSET - 1)


def _columns(grid: Path) -> int:
    """Derives the number of columns from the longer side of the first image."""
    with Image.open(grid) as whole, Image.open(grid.parent / "000.png") as single:
        return whole.width // max(single.size)
