"""One HTML file from a run's folder: the curve, before and after, the way there. Works offline."""

import base64
import io
import json
from collections import Counter
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from PIL import Image

from rediffuse.errors import RunError
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder

ENVIRONMENT = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True)
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
    page = ENVIRONMENT.get_template("page.html.jinja").render(
        name=run.path.resolve().name,
        config=config,
        yaml=(run.path / "config.yaml").read_text(),
        first=metrics[0],
        last=metrics[-1],
        metrics=metrics,
        seconds=sum(row["seconds_sampling"] + row["seconds_training"] for row in metrics),
        masked=_masked(metrics),
        curve=_curve(metrics),
        parts=_parts(metrics, config.reward["name"]),
        prompts=json.loads((run.samples / "prompts.json").read_text()),
        before=embedded(Image.open(stages[0])),
        after=embedded(Image.open(stages[-1])) if len(stages) > 1 else None,
        strip=[(int(path.parent.name.removeprefix("epoch-")), embedded(_column(path))) for path in shown],
    )
    run.report.write_text(page, encoding="utf-8")
    return run.report


def _masked(metrics: list[dict[str, float]]) -> dict[str, int]:
    """How many rewards of the run had which status."""
    lost = Counter[str]()
    for row in metrics:
        lost.update({key.removeprefix("masked_"): int(row[key]) for key in row if key.startswith("masked_")})
    del lost["rewards"]  # all of them
    return dict(lost.most_common())


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
    return data_uri("image/svg+xml", drawn(figure, "svg"))


def _parts(metrics: list[dict[str, float]], reward: str) -> str | None:
    """SVG: what the reward is made of, a panel each; None if it is of one piece."""
    own = {"reward_mean", "reward_std", "reward_queries", f"reward_{reward.rpartition(':')[2]}"}
    names = [key for key in metrics[-1] if key.startswith("reward_") and key not in own]
    if not names:
        return None
    figure = Figure(figsize=(8, 1.8 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for panel, name in zip(panels, names, strict=True):
        known = [row for row in metrics if name in row]
        panel.plot([row["reward_queries"] for row in known], [row[name] for row in known], marker="o", markersize=3)
        panel.set_ylabel(name.removeprefix("reward_"))
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("reward queries")
    return data_uri("image/svg+xml", drawn(figure, "svg"))


def drawn(figure: Figure, kind: str) -> bytes:
    """kind: svg or png."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    return buffer.getvalue()


def _column(grid: Path) -> Image.Image:
    """The first prompts' first pictures, one above the other."""
    image = Image.open(grid)
    side, rows = image.width // _columns(grid), min(NUM_STRIPS, _columns(grid))
    column = Image.new("RGB", (side, side * rows))
    for row in range(rows):
        column.paste(image.crop((row * side, 0, (row + 1) * side, side)), (0, row * side))
    return column


def embedded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return data_uri("image/png", buffer.getvalue())


def _columns(grid: Path) -> int:
    with Image.open(grid) as whole, Image.open(grid.parent / "000.png") as single:
        return whole.width // single.width


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
