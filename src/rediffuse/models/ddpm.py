"""Unconditional models in pixel space, as diffusers' DDPMPipeline: from the Hub or a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.config.schema import HubId, Permit, Text
from rediffuse.costs.architecture import Architecture
from rediffuse.errors import ConfigError
from rediffuse.hub.snapshots import refuse_what_cannot_be_had
from rediffuse.models import _costs
from rediffuse.models._compatible import refuse_other_than_pixels
from rediffuse.models._options import TrainingOptions

if TYPE_CHECKING:
    from rediffuse.models._pixels import PixelDiffusion

__all__ = ["DDPM"]


@dataclass(frozen=True)
class DDPM(TrainingOptions):
    """Denoising diffusion of pixels (Ho et al. 2020).

    Attributes:
        source: An id of the Hub, or a folder as diffusers saves it.
        revision: A commit hash, a tag or a branch of the Hub; None: the newest.
        variant: The variant of the files: fp16 reads diffusion_pytorch_model.fp16.safetensors.
        allow_pickle: Whether .bin files may be read, which can run any code.
    """

    source: HubId = "google/ddpm-cat-256"
    revision: Text | None = None
    variant: Text | None = None
    allow_pickle: Permit = False
    takes_text = False

    def __post_init__(self) -> None:
        """Makes a local path absolute and checks it; it has no revision."""
        if not (folder := Path(self.source)).is_dir():
            return
        if self.revision is not None:
            raise ConfigError(
                f"model.revision: {self.source} is on this machine; only models on the Hub have"
                " revisions. Leave it out."
            )
        refuse_other_than_pixels(folder)
        object.__setattr__(self, "source", str(folder.resolve()))

    def load(self, device: str, seed: int) -> "PixelDiffusion":
        refuse_what_cannot_be_had("model.source", self.source, self.revision)
        from rediffuse.models._pixels import PixelDiffusion, PixelSource

        source = PixelSource(self.source, self.revision, self.allow_pickle, self.variant)
        return PixelDiffusion(source, self, device, seed)

    def costs(self) -> Architecture | None:
        return _costs.of_pixels(self, self.source, self.revision)
