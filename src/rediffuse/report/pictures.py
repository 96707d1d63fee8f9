"""A run's pictures of its fixed prompts and seeds, small enough to send: each stage of training is
one sheet of tiles.
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
MOST_BYTES = 150_000
"""Of one frame; in a page it takes a third more."""
LARGEST_TILE, SMALLEST_TILE = 224, 64
LONGEST_INPUT = 256
QUALITIES = (90, 75, 60, 40, 20)
LONGEST_SHEET = 16383
"""Pixels that WebP holds in one direction."""
UNREADABLE = (OSError, SyntaxError, ValueError, ZeroDivisionError, Image.DecompressionBombError)
INSET = 1.02
"""Tiles are shown this much larger than their frame, so that no neighbour's edge shows."""


@dataclass(frozen=True)
class Sheet:
    """Pictures in columns and rows, as one image."""

    uri: str
    columns: int
    rows: int
    tile_pixels: int

    @property
    def size(self) -> str:
        """CSS: of the whole sheet, in tiles."""
        return f"{100 * INSET * self.columns:.2f}% {100 * INSET * self.rows:.2f}%"

    @property
    def pixels(self) -> bool:
        """Whether its pictures are so small that their pixels should be seen as they are."""
        return self.tile_pixels <= 128

    def place(self, column: int, row: int) -> str:
        """CSS: where the sheet lies behind a tile."""
        return f"{_share(column, self.columns):.4f}% {_share(row, self.rows):.4f}%"


@dataclass(frozen=True)
class Stage:
    """The grid of pictures after so many epochs."""

    epoch: int
    grid: Path


@dataclass(frozen=True)
class Frame:
    """A stage as the page shows it. `name`: the CSS class by which tiles show it."""

    name: str
    epoch: int
    sheet: Sheet


Some = TypeVar("Some", Stage, Frame)


def stages(samples: Path) -> list[Stage]:
    """In the order of training."""
    found = [
        Stage(int(grid.parent.name.removeprefix("epoch-")), grid)
        for grid in samples.glob("epoch-[0-9]*/grid.png")
    ]
    return sorted(found, key=lambda stage: stage.epoch)


def frames(found: Sequence[Stage], num_prompts: int, kind: str = "epoch") -> list[Frame]:
    """A picture that cannot be read, as one that is being written, is left out.

    kind: what their names begin with.
    """
    shown = []
    for stage in found:
        with suppress(*UNREADABLE):
            columns = num_prompts or _columns(stage.grid)
            picture = sheet(stage.grid, stage.grid.stat().st_mtime_ns, columns)
            shown.append(Frame(f"{kind}-{stage.epoch}", stage.epoch, picture))
    return shown


def evenly(found: Sequence[Some], most: int) -> list[Some]:
    """The first and the last among them."""
    last = len(found) - 1
    places = (
        dict.fromkeys(round(i * last / (most - 1)) for i in range(most))
        if last > 0
        else range(len(found))
    )
    return [found[place] for place in places]


def milestones(found: Sequence[Stage], most: int, also: Collection[int] = ()) -> list[Stage]:
    """Every one, or every second, or every fourth, ..., the last, and the first at or after each
    epoch of `also`.

    At most `most` and those. As a run grows, its page goes on with the pictures that it had before.
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
    """Of square pictures. Kept as long as the file stays the same, for a page is written again and
    again.

    written: the file's time of change.
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
    """The first picture of each of the first prompts."""
    with Image.open(stage.grid) as opened:
        whole = opened.convert("RGB")
    columns = num_prompts or _columns(stage.grid)
    side = whole.width // columns
    return [whole.crop((i * side, 0, (i + 1) * side, side)) for i in range(min(most, columns))]


def webp(image: Image.Image, quality: int) -> bytes:
    """Returns an image as a WebP file."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=2)
    return buffer.getvalue()


def embedded(image: Image.Image) -> str:
    """As a PNG: every pixel as it is."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return data_uri("image/png", buffer.getvalue())


def inputs(samples: Path, columns: int) -> list[str]:
    """What the model was given of each column's prompt, as a small picture; empty where nothing is
    there, or nothing that can be read.
    """
    found = [""] * columns
    for column in range(columns):
        place = samples / "inputs" / f"{column:03d}.png"
        with suppress(*UNREADABLE), Image.open(place) as opened:
            opened.thumbnail((LONGEST_INPUT, SMALLEST_TILE))
            found[column] = embedded(opened.convert("RGB"))
    return found


def _share(at: int, of: int) -> float:
    """The percentage of `background-position` that shows tile `at` in the middle of its frame."""
    return 100 * (at * INSET + (INSET - 1) / 2) / (of * INSET - 1)


def _columns(grid: Path) -> int:
    """By the longer side of the first picture alone."""
    with Image.open(grid) as whole, Image.open(grid.parent / "000.png") as single:
        return whole.width // max(single.size)
