"""What latent diffusion pipelines share: the only place that knows diffusers, transformers and
peft.
"""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from rediffuse.errors import ConfigError, RediffuseError, did_you_mean
from rediffuse.maths.schedules import Discrete
from rediffuse.modalities.image import Image
from rediffuse.models import _kohya
from rediffuse.models._embeddings import Embeddings
from rediffuse.models._fine_tuned import FineTuned, network_dtype, sort_header
from rediffuse.models._folders import quiet
from rediffuse.models._options import LatentDiffusionOptions
from rediffuse.models._quantized import refuse_impossible
from rediffuse.models._sources import Source
from rediffuse.models._visits import home_of, visiting
from rediffuse.types import Conditioning, Prompt

FORMS = ("kohya",)
"""What `rediffuse export --to` knows."""
REREAD = "reread"
ADAPTER_USAGE = """\
```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained(BASE_MODEL)
pipeline.load_lora_weights(THIS_FOLDER)
```"""


class LatentDiffusion(FineTuned):
    """A U-Net, a text encoder and an autoencoder of the classes that Stable Diffusion is made of; a
    `Denoiser`.
    """

    modality = Image()
    pipeline = "StableDiffusionPipeline"
    options: LatentDiffusionOptions

    def __init__(
        self, source: Source, options: LatentDiffusionOptions, device: str, seed: int
    ) -> None:
        refuse_impossible(options)
        dtype = network_dtype(options)
        parts = source.networks(dtype)
        super().__init__(parts.unet, lambda: source.unet(dtype), options, device, seed)
        self.pinned = {"revision": source.commit} if source.commit else {}
        self.vae = self._placed(parts.vae)
        self.text_encoder = self._placed(parts.text_encoder, home_of(self.device))
        self.tokenizer, self.schedule = parts.tokenizer, noise_schedule(parts.scheduler)
        size = self._latent_size()
        self.latent_shape = (self.unet.config.in_channels, size, size)
        self._embeddings = Embeddings(self._embed)
        if options.tile_pixels:
            self._use_tiles(options.tile_pixels)

    @property
    def unet(self) -> UNet2DConditionModel:
        """The network, by its name in such pipelines."""
        return self.network

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """Each text is encoded once and alone, so that its neighbours cannot change a bit of it."""
        texts = [prompt.text for prompt in prompts]
        return {"text": self._arrived(self._embeddings.of(texts))}

    def prepare(self, prompts: Sequence[Prompt]) -> None:
        if home_of(self.device) != self.device:
            self._embeddings.prepare([prompt.text for prompt in prompts])

    @property
    def max_tokens(self) -> int:
        """A tokenizer that does not say it would make texts of any length."""
        return int(
            min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
        )

    def num_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, verbose=False).input_ids)

    def predict(self, x: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        return self.predict_guided(x, time, conditioning, self.options.guidance_scale)

    def predict_guided(
        self, x: Tensor, time: Tensor, conditioning: Conditioning, scale: float
    ) -> Tensor:
        text = conditioning["text"]
        if scale == 1:
            return self._output(x, time, text)
        nothing = self._nothing.expand_as(text)
        both = self._output(torch.cat([x, x]), torch.cat([time, time]), torch.cat([nothing, text]))
        unguided, guided = both.chunk(2)
        return torch.lerp(unguided, guided, scale)

    def decode(self, latents: Tensor, prompts: Sequence[Prompt] = ()) -> Tensor:
        with self._autocast():
            scaled = (latents / self.vae.config.scaling_factor).contiguous(
                memory_format=torch.channels_last
            )
            pixels: Tensor = self.vae.decode(scaled).sample
        pixels = pixels.float()
        # clamping alone would make white of what is infinite
        known = pixels.where(pixels.isfinite(), torch.nan)
        return (known / 2 + 0.5).clamp(0, 1).contiguous()

    def encode_samples(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            law = self.vae.encode(
                (2 * samples - 1).contiguous(memory_format=torch.channels_last)
            ).latent_dist
        scale = self.vae.config.scaling_factor
        return law.mean.float() * scale, law.std.float() * scale

    def export(self, folder: Path) -> None:
        """pytorch_lora_weights.safetensors with its metadata, without which it reloads at the wrong
        strength; or unet/.
        """
        if self.options.train == "full":
            super().export(folder)
            return
        with quiet():
            from diffusers import StableDiffusionPipeline

            StableDiffusionPipeline.save_lora_weights(
                folder,
                unet_lora_layers=get_peft_model_state_dict(self.unet),
                unet_lora_adapter_metadata=self._adapter_metadata(),
            )
        sort_header(folder / "pytorch_lora_weights.safetensors")

    def _adapter_usage(self) -> str:
        return ADAPTER_USAGE

    def export_as(self, form: str, path: Path) -> None:
        """Reads the file again as diffusers does, and compares every tensor and every scale with
        those in use.
        """
        if form not in FORMS:
            raise ConfigError(
                f"--to: no format {form!r}; there is {', '.join(FORMS)}.{did_you_mean(form, FORMS)}"
            )
        if self.options.train == "full":
            raise ConfigError(
                f"--to {form}: this run trained all weights of the U-Net, so it has no adapter;"
                " see RUN/adapter/unet."
            )
        lora = get_peft_model_state_dict(self.unet)
        save_file(
            _kohya.tensors(lora, self.lora_alpha),
            path,
            _kohya.metadata(self.unet, self.options.lora_rank, self.lora_alpha),
        )
        sort_header(path)
        self._compare_with(path)

    def _compare_with(self, path: Path) -> None:
        """Raises RediffuseError unless the file holds this adapter, whole."""
        from diffusers import StableDiffusionPipeline

        # peft's, that there are two adapters now, and one again later
        with (
            quiet(),
            warnings.catch_warnings(action="ignore"),
        ):
            weights, alphas = StableDiffusionPipeline.lora_state_dict(
                path.parent, weight_name=path.name, unet_config=self.unet.config
            )
            StableDiffusionPipeline.load_lora_into_unet(
                weights, alphas, self.unet, adapter_name=REREAD
            )
        try:
            own, reread = (
                get_peft_model_state_dict(self.unet, adapter_name=name)
                for name in ("default", REREAD)
            )
            scales = [
                module.scaling for module in self.unet.modules() if hasattr(module, "scaling")
            ]
            # they are read in the precision of the network
            same = own.keys() == reread.keys() and all(
                torch.equal(own[name].to(reread[name]), reread[name]) for name in own
            )
            if not same or any(scale["default"] != scale.get(REREAD) for scale in scales):
                raise RediffuseError(
                    f"{path} does not match the trained adapter: when it was read back, its"
                    " tensors or scales differed."
                )
        finally:
            self.unet.set_adapter("default")
            self.unet.delete_adapters(REREAD)

    @cached_property
    def _nothing(self) -> Tensor:
        """The embedding of the empty text, (1, tokens, width): every guided step reads it."""
        return self._arrived(self._embeddings.of([""]))

    def _arrived(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Returns embeddings of the host on the device, (N, tokens, width) in fp32."""
        stacked = torch.stack([*embeddings])
        if self.device.type == "cuda":  # the host does not wait for copies of pinned memory
            stacked = stacked.pin_memory()
        return stacked.to(self.device, non_blocking=True).float()

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> Iterator[Tensor]:
        """Yields the embedding (tokens, width) of each text on the host, in the precision of the
        text encoder.
        """
        limits = {"padding": "max_length", "truncation": True, "max_length": self.max_tokens}
        with visiting(self.text_encoder, self.device) as encoder:
            for text in texts:
                tokens = self.tokenizer(text, return_tensors="pt", **limits).input_ids
                yield encoder(tokens.to(self.device)).last_hidden_state[0].cpu()

    @property
    def _pixels_per_latent(self) -> int:
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def _use_tiles(self, pixels: int) -> None:
        """Raises ConfigError if tiles of this size have no overlap to blend."""
        least = 4 * self._pixels_per_latent
        if pixels < least or pixels % least:
            raise ConfigError(
                f"model.tile_pixels: {pixels} is not a multiple of {least}, which tiles of this"
                " model's autoencoder need."
            )
        self.vae.enable_tiling()
        self.vae.tile_sample_min_size = pixels
        self.vae.tile_latent_min_size = pixels // self._pixels_per_latent

    def _latent_size(self) -> int:
        """Of one side, as the model was trained or as asked."""
        pixels_per_latent = self._pixels_per_latent
        pixels = self.options.size_pixels or self.unet.config.sample_size * pixels_per_latent
        step = pixels_per_latent * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if pixels % step:
            raise ConfigError(
                f"model.size_pixels: {pixels} is not a multiple of {step}, which this model's"
                " layers need."
            )
        return int(pixels // pixels_per_latent)


def noise_schedule(scheduler: DDIMScheduler) -> Discrete:
    """Returns the schedule that a scheduler of diffusers was configured with."""
    config = scheduler.config
    return Discrete(
        alpha_bar=scheduler.alphas_cumprod,
        final_alpha_bar=float(scheduler.final_alpha_cumprod),
        prediction=config.prediction_type,
        spacing=config.timestep_spacing,
        steps_offset=config.steps_offset,
        clip_sample_range=config.clip_sample_range if config.clip_sample else None,
    )
