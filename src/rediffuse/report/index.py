"""An overview page of a folder of runs, with links to their reports."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from PIL import Image

from rediffuse.errors import RediffuseError, RunError
from rediffuse.report import page, pictures
from rediffuse.report.charts import data_uri, sparkline
from rediffuse.report.markup import rendered
from rediffuse.runs import files
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import column
from rediffuse.verdict import verdict as verdicts
from rediffuse.verdict.changes import finite

NUM_THUMBNAILS = 3
THUMBNAIL_PIXELS = 96
QUALITY = 80
"""The WebP quality of thumbnails."""


@dataclass(frozen=True)
class Card:
    """One run on the overview page.

    Attributes:
        link: The path to the run's report; None if there is none.
        trouble: Why the run could not be read; empty otherwise.
        thumbnail: Images before training above those of the last evaluation, as a data URI.
    """

    name: str
    link: str | None
    trouble: str = ""
    told: page.Told | None = None
    verdict: Mapping[str, Any] | None = None
    curve: Markup | None = None
    thumbnail: str | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The mean rewards of the first and the last epoch."""
        assert self.told is not None
        first, last = self.told.metrics[0], self.told.metrics[-1]
        main = self.told.main_column
        return finite(column(first, main)), finite(column(last, main))

    @property
    def names(self) -> dict[str, object]:
        """The names of the run's components."""
        assert self.told is not None
        return page.headings(self.told.config)


def write(folder: Path, out: Path | None = None) -> Path:
    """Writes index.html, and the runs' verdicts and reports where they are missing or outdated.

    Args:
        folder: The folder of runs.
        out: The file to write instead; then nothing is written into `folder`.

    Returns:
        The path of the page.

    Raises:
        RunError: The folder contains no run.
    """
    runs = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if not runs:
        raise RunError(
            f"{folder} holds no run. A run is a folder that `rediffuse train` made; name the"
            " folder that contains them."
        )
    html = rendered(
        "index.html.jinja",
        name=folder.resolve().name,
        cards=[_card(RunFolder(path), out) for path in runs],
    )
    if out is not None:
        return files.write_out(out, html)
    files.write_text(folder / "index.html", html)
    return folder / "index.html"


def _card(run: RunFolder, out: Path | None) -> Card:
    """Returns the card of a run; if the run cannot be read, the card states the reason."""
    link = f"{quote(run.path.name)}/report.html"
    if out is not None:
        link = quote(os.path.relpath(run.report.resolve(), out.resolve().parent))
    try:
        told = page.read(run)
        if out is None:
            told = _made_anew(run, told)
    except (RediffuseError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Card(run.path.name, link if run.report.exists() else None, trouble=str(error))
    curve = sparkline([finite(column(row, told.main_column)) for row in told.metrics])
    verdict = told.verdict or page.plain_words(told.metrics)
    shown_at = link if run.report.exists() else None
    return Card(
        run.path.name, shown_at, told=told, verdict=verdict, curve=curve, thumbnail=_thumbnail(told)
    )


def _made_anew(run: RunFolder, told: page.Told) -> page.Told:
    """Updates the verdict and the report if they are older than the metrics."""
    if _older(run.verdict, run.metrics):
        verdicts.write(run)
        told = page.read(run)
    if _older(run.report, run.metrics):
        page.write(run)
    return told


def _older(path: Path, source: Path) -> bool:
    """Whether a file is older than another, or missing."""
    return not path.exists() or path.stat().st_mtime < source.stat().st_mtime


def _thumbnail(told: page.Told) -> str | None:
    """Returns the first image of each of the first prompts, before training and at the last
    evaluation.
    """
    found = pictures.stages(told.run.samples)
    try:
        rows = [
            pictures.tiles(stage, len(told.prompts), NUM_THUMBNAILS)
            for stage in pictures.evenly(found, 2)
        ]
    except pictures.UNREADABLE:
        return None
    if not rows:
        return None
    side = THUMBNAIL_PIXELS
    sheet = Image.new("RGB", (side * len(rows[0]), side * len(rows)))
    for down, row in enumerate(rows):
        for across, tile in enumerate(row):
            sheet.paste(tile.resize((side, side)), (across * side, down * side))
    return data_uri("image/webp", pictures.webp(sheet, QUALITY))
