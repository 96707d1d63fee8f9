"""What leaves a run for other tools: the adapter with its model card, and files in other
formats.
"""

from pathlib import Path

import jinja2

from rediffuse.runs import files
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import read_metrics
from rediffuse.types import Denoiser

_CARD = jinja2.Template(
    (Path(__file__).parent / "model_card.md.jinja").read_text(), keep_trailing_newline=True
)


def adapter(denoiser: Denoiser, run: RunFolder, epochs: int) -> None:
    """RUN/adapter: what was learned in so many epochs, and a README.md that says how and on
    what.
    """
    config, metrics = run.config(), read_metrics(run)[:epochs]
    versions = files.read_json(run.path / "environment.json")
    card = _CARD.render(
        config=config,
        metrics=metrics,
        versions=versions,
        yaml=(run.path / "config.yaml").read_text(),
    )
    with files.staged_folder(run.adapter) as new:
        denoiser.export(new)
        (new / "README.md").write_text(card)


def converted(denoiser: Denoiser, form: str, path: Path) -> Path:
    """What was learned, as a file of another format; all or nothing. Raises ConfigError where there
    is no such form of it.
    """
    files.make_folder(path.parent)
    with files.staged(path) as new:
        denoiser.export_as(form, new)
    return path
