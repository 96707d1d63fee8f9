"""What leaves a run for other tools: the adapter with its model card, and files in other formats."""

import json
import os
from pathlib import Path

import jinja2

from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder
from rediffuse.types import Denoiser

_CARD = jinja2.Template((Path(__file__).parent / "model_card.md.jinja").read_text(), keep_trailing_newline=True)


def adapter(denoiser: Denoiser, run: RunFolder, epochs: int) -> None:
    """RUN/adapter: what was learned in so many epochs, and a README.md that says how and on what."""
    run.adapter.mkdir(exist_ok=True)
    denoiser.export(run.adapter)
    config, metrics = run.config(), log.read(run.metrics)[:epochs]
    versions = json.loads((run.path / "environment.json").read_text())
    card = _CARD.render(config=config, metrics=metrics, versions=versions, yaml=(run.path / "config.yaml").read_text())
    (run.adapter / "README.md").write_text(card)


def converted(denoiser: Denoiser, form: str, path: Path) -> Path:
    """What was learned, as a file of another format; all or nothing. Raises ConfigError where there is no such form of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".staged-{os.getpid()}-{path.name}")
    try:
        denoiser.export_as(form, staged)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    return path
