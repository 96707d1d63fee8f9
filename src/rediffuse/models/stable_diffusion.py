"""Stable Diffusion 1.x and 2.x: from the Hub, a folder, or a single .safetensors file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rediffuse.config.schema import HubId, Permit, Text
from rediffuse.costs.architecture import Architecture
from rediffuse.errors import ConfigError
from rediffuse.hub.snapshots import refuse_what_cannot_be_had
from rediffuse.models import _costs
from rediffuse.models._compatible import refuse_other_kinds
from rediffuse.models._options import LatentDiffusionOptions

if TYPE_CHECKING:
    from rediffuse.models._diffusers import LatentDiffusion

__all__ = ["StableDiffusion"]


@dataclass(frozen=True)
class StableDiffusion(LatentDiffusionOptions):
    """source: an id of the Hub, a folder as diffusers saves it, or a .safetensors file as the
    community ships them.

    revision: a commit hash, a tag or a branch of the Hub; None: the newest.
    config: of a single file, the folder or Hub id of a pipeline of the same kind; None: diffusers
    looks for it on the Hub.
    prediction: what the network predicts; None: what the source says or, of a single file, what
    diffusers takes it for, which for Stable Diffusion 2.x can be the wrong one of the two.
    variant: of the files of a folder or the Hub, as fp16 in
    diffusion_pytorch_model.fp16.safetensors.
    vae, text_encoder: of another model, as a folder on this machine; None: the source's own.
    allow_pickle: read .bin and .ckpt files too, which may run any code.
    """

    source: HubId = "CompVis/stable-diffusion-v1-4"
    revision: Text | None = None
    config: HubId | None = None
    prediction: Literal["epsilon", "v_prediction"] | None = None
    variant: Text | None = None
    vae: HubId | None = None
    text_encoder: HubId | None = None
    allow_pickle: Permit = False

    def __post_init__(self) -> None:
        """What is on this machine means the same in any working directory, and has no revision."""
        if self.revision is not None and Path(self.source).exists():
            raise ConfigError(
                f"model.revision: {self.source} is on this machine; only models on the Hub have"
                " revisions. Leave it out."
            )
        if Path(self.source).is_dir():
            instead = {"vae": self.vae, "text_encoder": self.text_encoder}
            refuse_other_kinds(Path(self.source), self.size_pixels, self.prediction, instead)
        for name in ("source", "config", "vae", "text_encoder"):
            value = getattr(self, name)
            if value is not None and Path(value).exists():
                object.__setattr__(self, name, str(Path(value).resolve()))

    def load(self, device: str, seed: int) -> "LatentDiffusion":
        refuse_what_cannot_be_had("model.source", self.source, self.revision)
        from rediffuse.models._diffusers import LatentDiffusion
        from rediffuse.models._sources import Source

        shared = (
            "revision",
            "config",
            "allow_pickle",
            "prediction",
            "variant",
            "size_pixels",
            "vae",
            "text_encoder",
        )
        return LatentDiffusion(
            Source(self.source, **{name: getattr(self, name) for name in shared}),
            self,
            device,
            seed,
        )

    def costs(self) -> Architecture | None:
        instead = {"vae": self.vae, "text_encoder": self.text_encoder}
        return _costs.of_pipeline(self, self.source, self.revision, instead)
