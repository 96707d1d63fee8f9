"""Images of samples: drawn by the prompt set if it renders samples in their scene, otherwise by the
modality.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.errors import ConfigError, quoted
from rediffuse.lookup import trust
from rediffuse.lookup.build import build
from rediffuse.lookup.find import find
from rediffuse.runs.folder import RunFolder
from rediffuse.types import Modality, Prompt, PromptSet, Renders


@dataclass(frozen=True)
class View:
    """The images of samples for reports, grids, suites and statistics.

    Attributes:
        modality: The modality of the samples.
        prompts: The prompt set that their prompts come from, if it is known.
    """

    modality: Modality
    prompts: PromptSet | None = None

    @property
    def is_sample(self) -> bool:
        """Whether the image is the sample itself."""
        return self.modality.suffix == ".png" and not isinstance(self.prompts, Renders)

    def preview(self, samples: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Returns images (B, 3, H, W) in [0, 1] of samples (B, *S), NaN for samples that are not
        finite; the prompt set renders only the others.

        Raises:
            ConfigError: The prompt set returns something else than images.
        """
        finite = samples.flatten(1).isfinite().all(1)
        if not isinstance(self.prompts, Renders) or not finite.any():
            return self.modality.preview(samples)
        whole = finite.nonzero().flatten().tolist()
        drawn = self.prompts.render(samples[whole], [prompts[i] for i in whole])
        _refuse_no_images(drawn, len(whole))
        images = torch.full((len(samples), *drawn.shape[1:]), torch.nan)
        images[whole] = drawn.detach().float().cpu()
        return images


def _refuse_no_images(drawn: object, size: int) -> None:
    shape = tuple(drawn.shape) if isinstance(drawn, Tensor) else ()
    if len(shape) != 4 or shape[:2] != (size, 3):
        found = f"shape {shape}" if shape else quoted(type(drawn).__name__)
        raise ConfigError(
            f"prompts.name: render gave {found} for {size} samples, where images ({size}, 3, H, W)"
            " in [0, 1] are needed."
        )


def scene_of(run: RunFolder, *, trusted: bool) -> PromptSet | None:
    """Returns the run's prompt set if it renders samples and its code exists and is permitted,
    otherwise None. trusted: whether all code of the run is permitted.
    """
    config = run.config()
    asked = () if trusted else trust.unallowed(config, run=run.path)
    if any(place.startswith("prompts.") for place in asked):
        return None
    try:
        renders = hasattr(find("prompts", config.prompts["name"]), "render")
    except ConfigError:
        return None
    return build("prompts", config.prompts) if renders else None
