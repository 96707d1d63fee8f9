"""Unconditional diffusion in pixel space: the parts of diffusers' DDPMPipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

from rediffuse.maths.schedules import Discrete
from rediffuse.modalities.image import Image
from rediffuse.models._compatible import part_of_pixels, refuse_other_than_pixels
from rediffuse.models._diffusers import noise_schedule
from rediffuse.models._fine_tuned import FineTuned, network_dtype
from rediffuse.models._folders import PipelineFolder, reading_pipeline
from rediffuse.models._options import TrainingOptions
from rediffuse.models._quantized import refuse_impossible
from rediffuse.types import Conditioning, Prompt


@dataclass(frozen=True)
class PixelSource(PipelineFolder):
    """A pipeline of a network and a scheduler."""

    weights: ClassVar = {"unet": "diffusion_pytorch_model"}
    pickled: ClassVar = {"unet": "diffusion_pytorch_model.bin"}
    others: ClassVar = {"scheduler": "scheduler_config.json"}
    configurations: ClassVar = ("*.json", "*/*.json")

    def part_in(self, folder: Path, part: str) -> Path:
        return part_of_pixels(folder, part)

    def refuse_other_kinds(self, folder: Path) -> None:
        refuse_other_than_pixels(folder)

    def unet(self, dtype: torch.dtype) -> UNet2DModel:
        """Loads the pretrained network."""
        with reading_pipeline(self.part_in(self.folder, "unet")):
            return self.whole(UNet2DModel, "unet", dtype)

    def schedule(self) -> Discrete:
        """Returns the noise schedule of the pipeline's scheduler."""
        place = self.part_in(self.folder, "scheduler")
        with reading_pipeline(place):
            return noise_schedule(DDIMScheduler.from_pretrained(place))


class PixelDiffusion(FineTuned):
    """An unconditional `Denoiser` whose latents are pixels in [-1, 1]."""

    modality = Image()
    pipeline = "DDPMPipeline"

    def __init__(
        self, source: PixelSource, options: TrainingOptions, device: str, seed: int
    ) -> None:
        refuse_impossible(options)
        dtype = network_dtype(options)
        super().__init__(source.unet(dtype), lambda: source.unet(dtype), options, device, seed)
        self.schedule = source.schedule()
        self.pinned = {"revision": source.commit} if source.commit else {}
        size = self.network.config.sample_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        self.latent_shape: tuple[int, ...] = (self.network.config.in_channels, *sides)

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        return {}

    def predict(self, x: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        return self._output(x, time)

    def decode(self, latents: Tensor, prompts: Sequence[Prompt] = ()) -> Tensor:
        """Greyscale images are repeated in three channels."""
        known = latents.where(latents.isfinite(), torch.nan)
        return (known / 2 + 0.5).clamp(0, 1).expand(-1, 3, -1, -1)

    def encode_samples(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        mean = 2 * samples[:, : self.latent_shape[0]] - 1
        return mean, torch.zeros_like(mean)
