"""What leaves a run for other tools: the adapter with its model card, and files in other
formats.
"""

from pathlib import Path

import jinja2

from rediffuse.errors import ConfigError
from rediffuse.runs import files
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import read_metrics
from rediffuse.types import Converts, Denoiser, HasModelCard, ModelCard

_CARD = jinja2.Template(
    (Path(__file__).parent / "model_card.md.jinja").read_text(),
    keep_trailing_newline=True,
    trim_blocks=True,
)


def adapter(denoiser: Denoiser, run: RunFolder, epochs: int) -> None:
    """RUN/adapter: what was learned in so many epochs, and a README.md that says how and on
    what.
    """
    config, metrics = run.config(), read_metrics(run)[:epochs]
    versions = files.read_json(run.path / "environment.json")
    with files.staged_folder(run.adapter) as new:
        denoiser.export(new)
        card = _CARD.render(
            card=denoiser.model_card() if isinstance(denoiser, HasModelCard) else _plain(new),
            config=config,
            metrics=metrics,
            versions=versions,
            yaml=(run.path / "config.yaml").read_text(),
        )
        (new / "README.md").write_text(card)


def converted(denoiser: Denoiser, form: str, path: Path) -> Path:
    """What was learned, as a file of another format; all or nothing. Raises ConfigError where there
    is no such form of it.
    """
    if not isinstance(denoiser, Converts):
        raise ConfigError(
            f"--to {form}: this kind of model cannot be converted to that format. The trained"
            " adapter is in RUN/adapter; its README.md says how to load it."
        )
    files.make_folder(path.parent)
    with files.staged(path) as new:
        denoiser.export_as(form, new)
    return path


def _plain(folder: Path) -> ModelCard:
    """Returns the card of a family that has none: the names of the exported files."""
    names = [
        f"`{path.relative_to(folder)}`" for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    return ModelCard(
        f"The trained weights are in {', '.join(names)}, in the format of the model's own code."
        if names
        else "The model's own code exports no weights."
    )
