"""Charts as inline SVG that use the page's colours, in light or dark mode, and contain no foreign
markup. matplotlib is imported when the first one is drawn.
"""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, RULE = "#010203", "#010204"
SERIES = [f"#0102{10 + tone}" for tone in range(6)]
PAGE_COLOURS = {
    INK: "currentColor",
    RULE: "var(--rule)",
    **{code: f"var(--series-{i})" for i, code in enumerate(SERIES)},
}
"""Placeholder colours in drawings, with the CSS values that replace them."""
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rediffuse",
    "text.parse_math": False,
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), RULE),
}
NEEDLESS = "|".join(
    (
        r"<metadata>.*?</metadata>",
        r"<style.*?</style>",
        r"<!--.*?-->",
        r"<defs>\s*</defs>",
        r' xmlns(:xlink)?="[^"]*"',
        r" font-family:[^;]*;",
        r'(?<=<g) id="[^"]*"',
        r' transform="rotate\(-0[^"]*"',
        r"^ +",
    )
)
"""Parts of an SVG file that inline SVG does not need."""
MOST_MARKERS = 40
"""Lines with more points are drawn without markers."""
POINTS_AN_INCH = 72
SMALL = 350
"""Charts up to this width have no room for labels of marks."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        x: Horizontal values, in epochs.
        y: Vertical values.
        label: Shown in the legend, outside of the chart.
        low: The lower bounds of a band, or empty.
        high: The upper bounds of a band, or empty.
        tone: The index of the page's series colour.
    """

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    tone: int = 0


@dataclass(frozen=True)
class Chart:
    """A chart of lines over epochs.

    Attributes:
        lines: The lines.
        width: The width in CSS pixels for which it is designed.
        height: The height in CSS pixels.
        marks: Epochs with labels, drawn as vertical lines.
        zero: Whether to draw a line at 0.
    """

    lines: Sequence[Line]
    width: int = 350
    height: int = 170
    marks: Sequence[tuple[float, str]] = field(default=())
    zero: bool = False


def svg(chart: Chart, prefix: str) -> Markup:
    """Returns a chart as inline SVG; `prefix` makes its ids unique in the page."""
    return in_page(lambda: _figure(chart), prefix)


def in_page(draw: Callable[[], Figure], prefix: str) -> Markup:
    """Returns a figure as inline SVG in the page's colours.

    Args:
        draw: Creates the figure; called with the required matplotlib settings.
        prefix: Makes the ids unique in the page.
    """
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        figure = draw()
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_visible(False)
        code = drawn(figure, "svg").decode()
    code = re.sub(NEEDLESS, "", code[code.index("<svg") :], flags=re.DOTALL | re.MULTILINE).replace(
        "xlink:href=", "href="
    )
    code = re.sub(r'\bid="|(?<=href=")#|(?<=url\()#', lambda found: f"{found[0]}{prefix}-", code)
    code = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>',
        r'<svg \1 aria-hidden="true" focusable="false">',
        code,
        count=1,
    )
    return Markup(re.sub("#0102[0-9]{2}", lambda found: PAGE_COLOURS[found[0]], code))


def sparkline(values: Sequence[float], width: int = 120, height: int = 28) -> Markup:
    """Returns a small curve without axes as inline SVG; empty with fewer than two finite values."""
    known = [(i, value) for i, value in enumerate(values) if math.isfinite(value)]
    if len(known) < 2:
        return Markup("")
    low, high = min(value for _, value in known), max(value for _, value in known)
    across, up = (width - 4) / (len(values) - 1), (height - 4) / ((high - low) or 1)
    points = " ".join(
        f"{2 + i * across:.1f},{height - 2 - (value - low) * up:.1f}" for i, value in known
    )
    line = f'<polyline points="{points}" fill="none" stroke="var(--series-0)" stroke-width="1.8"/>'
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true" focusable="false">{line}</svg>'
    )


def drawn(figure: Figure, kind: str) -> bytes:
    """Renders a figure as "svg" or "png"."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type")) if kind == "svg" else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # browsers use fonts of their own
        figure.savefig(buffer, format=kind, dpi=150, metadata=nothing)
    return buffer.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """Returns content as a data URI; `kind` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _figure(chart: Chart) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(chart.width / POINTS_AN_INCH, chart.height / POINTS_AN_INCH))
    axes = figure.add_axes(
        (52 / chart.width, 36 / chart.height, 1 - 62 / chart.width, 1 - 48 / chart.height)
    )
    for line in chart.lines:
        _plot(axes, line)
    _mark(axes, chart)
    _dress(axes, chart)
    return figure


def _plot(axes: Axes, line: Line) -> None:
    colour = SERIES[line.tone % len(SERIES)]
    if line.low:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
    few = len(line.x) <= MOST_MARKERS
    axes.plot(
        line.x,
        line.y,
        color=colour,
        linewidth=1.8,
        marker="o" if few else "",
        markersize=3,
        clip_on=False,
    )


def _mark(axes: Axes, chart: Chart) -> None:
    if chart.zero:
        axes.axhline(0, color=INK, linewidth=0.8, alpha=0.5)
    for level, (epoch, word) in enumerate(chart.marks):
        axes.axvline(epoch, color=INK, linewidth=1, linestyle=(0, (3, 3)), alpha=0.75)
        if chart.width > SMALL:
            _write(axes, epoch, word, level)


def _write(axes: Axes, epoch: float, word: str, level: int) -> None:
    """Labels a mark, on the side with more room."""
    leftward = epoch > sum(axes.get_xlim()) / 2
    axes.annotate(
        word,
        (epoch, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if leftward else 4, -2 - 12 * level),
        textcoords="offset points",
        ha="right" if leftward else "left",
        va="top",
        fontsize=9,
    )


def _dress(axes: Axes, chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.ticklabel_format(axis="y", scilimits=(-3, 5), useMathText=False)
    values = [
        value for line in chart.lines for value in (*line.y, *line.low) if not math.isnan(value)
    ]
    if min(values, default=-1) >= 0 > axes.get_ylim()[0]:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("epochs of training")
