"""One HTML file from a run's folder: the curve, before and after, the way there. Works offline."""

import base64
import io
import json
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from rediffuse.errors import RunError
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder

_ENVIRONMENT = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
STRIP_LENGTH = 8
NUM_STRIPS = 6


def write(run: RunFolder) -> Path:
    """Raises RunError if the run has no epoch yet."""
    metrics = log.read(run.metrics)
    stages = sorted(run.samples.glob("epoch-*/grid.png"))
    if not metrics or not stages:
        raise RunError(f"{run.path} has no finished epoch to report on. Go on with it: rediffuse resume {run.path}")
    config = run.config()
    shown = [stages[round(i * (len(stages) - 1) / (STRIP_LENGTH - 1))] for i in range(STRIP_LENGTH)]
    shown = list(dict.fromkeys(shown))
    page = _ENVIRONMENT.get_template("page.html.jinja").render(
        name=run.path.resolve().name,
        config=config,
        yaml=(run.path / "config.yaml").read_text(),
        first=metrics[0],
        last=metrics[-1],
        metrics=metrics,
        seconds=sum(row["seconds_sampling"] + row["seconds_training"] for row in metrics),
        masked=sum(row["masked_rewards"] for row in metrics),
        curve=_curve(metrics),
        prompts=json.loads((run.samples / "prompts.json").read_text()),
        before=_embedded(stages[0]),
        after=_embedded(stages[-1]) if len(stages) > 1 else None,
        strip=[(int(path.parent.name.removeprefix("epoch-")), _embedded(path, NUM_STRIPS)) for path in shown],
    )
    run.report.write_text(page, encoding="utf-8")
    return run.report


def _curve(metrics: list[dict[str, float]]) -> str:
    """SVG: the mean reward against reward queries, with a standard deviation on either side."""
    queries = [row["reward_queries"] for row in metrics]
    mean = [row["reward_mean"] for row in metrics]
    low = [row["reward_mean"] - row["reward_std"] for row in metrics]
    high = [row["reward_mean"] + row["reward_std"] for row in metrics]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(queries, low, high, alpha=0.15, color="#d6336c", linewidth=0)
    axes.plot(queries, mean, color="#d6336c", marker="o", markersize=3)
    axes.set_xlabel("reward queries")
    axes.set_ylabel("reward (mean ± one standard deviation)")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def _embedded(path: Path, rows: int | None = None) -> str:
    """The grid as a data URI; or its first pictures as one column."""
    image: Image.Image = Image.open(path)
    if rows is not None:
        side = image.width // max(1, _columns(path))
        column = Image.new("RGB", (side, side * min(rows, _columns(path))))
        for row in range(min(rows, _columns(path))):
            column.paste(image.crop((row * side, 0, (row + 1) * side, side)), (0, row * side))
        image = column
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return _data_uri("image/png", buffer.getvalue())


def _columns(grid: Path) -> int:
    with Image.open(grid) as whole, Image.open(grid.parent / "000.png") as single:
        return whole.width // single.width


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
