"""The embedded model: 64-pixel emoji images from a prompt, 7.6 M parameters, no download
(pretraining/).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.config.schema import Method, Positive, PositiveInt, Text
from rediffuse.costs.architecture import Architecture
from rediffuse.models import _costs
from rediffuse.models._options import LatentDiffusionOptions

if TYPE_CHECKING:
    from rediffuse.models._diffusers import LatentDiffusion

__all__ = ["Emoji"]

PIPELINE = Path(__file__).parent / "pipeline"


@dataclass(frozen=True)
class Emoji(LatentDiffusionOptions):
    """The options of the embedded model, with defaults that suit it: it was trained to need no
    guidance, and a small network needs a larger adapter.
    """

    guidance_scale: Positive = 1.0
    lora_rank: Method[PositiveInt] = 16
    lora_targets: Method[tuple[Text, ...]] = (
        "to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out",
        "time_emb_proj",
    )  # fmt: skip

    def load(self, device: str, seed: int) -> "LatentDiffusion":
        from rediffuse.models._diffusers import LatentDiffusion
        from rediffuse.models._sources import Source

        return LatentDiffusion(Source(str(PIPELINE)), self, device, seed)

    def costs(self) -> Architecture | None:
        return _costs.of_pipeline(self, str(PIPELINE))
