"""How samples are shown: by the prompt set where it draws them in their scene, else by their
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
    """What pages, grids, suites and statistics show of samples.

    Attributes:
        modality: of the samples.
        prompts: the set that their prompts are from; None: whatever it draws is not known.
    """

    modality: Modality
    prompts: PromptSet | None = None

    @property
    def is_sample(self) -> bool:
        """Whether the picture that is shown is the sample itself."""
        return self.modality.suffix == ".png" and not isinstance(self.prompts, Renders)

    def preview(self, samples: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """samples (B, *S) -> images (B, 3, H, W) in [0, 1]; NaN where a sample is not finite.

        A prompt set is shown finite samples alone. Raises ConfigError where it gives no images of
        them.
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
    """The run's prompt set where it draws samples in their scene; None where it does not, or where
    its code is gone, or not allowed here.
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
