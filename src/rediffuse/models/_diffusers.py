"""What latent diffusion pipelines share: the only place that knows diffusers, transformers and
peft.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from rediffuse.errors import ConfigError, RediffuseError, did_you_mean
from rediffuse.maths import noise
from rediffuse.maths.schedules import Discrete
from rediffuse.modalities.image import Image
from rediffuse.models import _kohya
from rediffuse.models._options import LatentDiffusionOptions
from rediffuse.models._sources import Source, quiet
from rediffuse.types import Conditioning, Prompt, Weights

Network = TypeVar("Network", bound=nn.Module)
MAX_EMBEDDINGS = 1024
"""Of texts, remembered: a quarter of a megabyte each for Stable Diffusion."""
FORMS = ("kohya",)
"""What `rediffuse export --to` knows."""
REREAD = "reread"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class LatentDiffusion:
    """A U-Net, a text encoder and an autoencoder of the classes that Stable Diffusion is made of; a
    `Denoiser`.
    """

    modality = Image()

    def __init__(
        self, source: Source, options: LatentDiffusionOptions, device: str, seed: int
    ) -> None:
        self.options, self.device = options, torch.device(device)
        self._source = source
        self._dtype = PRECISIONS[options.precision if options.train == "lora" else "fp32"]
        self.precision = options.precision
        self.needs_loss_scaling = options.precision == "fp16"
        parts = source.networks(self._dtype)
        self.pinned = {"revision": source.commit} if source.commit else {}
        self.unet, self.vae, self.text_encoder = map(
            self._placed, (parts.unet, parts.vae, parts.text_encoder)
        )
        self.tokenizer, self.schedule = parts.tokenizer, noise_schedule(parts.scheduler)
        size = self._latent_size()
        self.latent_shape = (self.unet.config.in_channels, size, size)
        if options.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        self._embedding = lru_cache(MAX_EMBEDDINGS)(self._embed)
        self._pretrained: UNet2DConditionModel | None = None
        if options.train == "lora":
            self._add_adapter(seed)
        else:
            self.unet.requires_grad_(True)
        self._learning = {name: p for name, p in self.unet.named_parameters() if p.requires_grad}

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """Each text is encoded once and alone, so that its neighbours cannot change a bit of it."""
        texts = [prompt.text for prompt in prompts]
        return {"text": torch.stack([self._embedding(text) for text in texts])}

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
            return self._denoise(x, time, text)
        nothing = self._embedding("").expand_as(text)
        both = self._denoise(torch.cat([x, x]), torch.cat([time, time]), torch.cat([nothing, text]))
        unguided, guided = both.chunk(2)
        return torch.lerp(unguided, guided, scale)

    @torch.no_grad()
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

    @torch.no_grad()
    def encode_samples(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            law = self.vae.encode(
                (2 * samples - 1).contiguous(memory_format=torch.channels_last)
            ).latent_dist
        scale = self.vae.config.scaling_factor
        return law.mean.float() * scale, law.std.float() * scale

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._learning

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Switches the adapter off; where all of the U-Net learns, it loads the one that training
        started from, once.
        """
        if self.options.train == "lora":
            self.unet.disable_adapters()
            try:
                yield
            finally:
                self.unet.enable_adapters()
        else:
            if self._pretrained is None:
                self._pretrained = self._placed(self._source.unet(self._dtype))
            tuned, self.unet = self.unet, self._pretrained
            try:
                yield
            finally:
                self.unet = tuned

    def export(self, folder: Path) -> None:
        """pytorch_lora_weights.safetensors with its metadata, without which it reloads at the wrong
        strength; or unet/.
        """
        if self.options.train == "full":
            self.unet.save_pretrained(folder / "unet")
            return
        metadata = {
            key: sorted(value) if isinstance(value, set) else value
            for key, value in self.unet.peft_config["default"].to_dict().items()
        }
        with quiet():
            from diffusers import StableDiffusionPipeline

            StableDiffusionPipeline.save_lora_weights(
                folder,
                unet_lora_layers=get_peft_model_state_dict(self.unet),
                unet_lora_adapter_metadata=metadata,
            )
        sort_header(folder / "pytorch_lora_weights.safetensors")

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
            _kohya.tensors(lora, self._alpha),
            path,
            _kohya.metadata(self.unet, self.options.lora_rank, self._alpha),
        )
        sort_header(path)
        self._compare_with(path)

    @property
    def _alpha(self) -> float:
        return self.options.lora_alpha or self.options.lora_rank

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
            same = own.keys() == reread.keys() and all(
                torch.equal(own[name], reread[name].to(own[name])) for name in own
            )
            if not same or any(scale["default"] != scale.get(REREAD) for scale in scales):
                raise RediffuseError(
                    f"{path} is not what was trained: read again, its tensors or scales differ."
                )
        finally:
            self.unet.set_adapter("default")
            self.unet.delete_adapters(REREAD)

    def _add_adapter(self, seed: int) -> None:
        options = self.options
        config = LoraConfig(
            r=options.lora_rank,
            lora_alpha=self._alpha,
            target_modules=list(options.lora_targets),
            init_lora_weights="gaussian",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise.generator(seed, "adapter").initial_seed())
            try:
                self.unet.add_adapter(config)
            except ValueError as error:
                raise ConfigError(f"model.lora_targets: {error}") from error
        for parameter in self.unet.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _denoise(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        if self.device.type == "cpu":  # autocast leaves its layer norms in their input's precision
            text = text.to(self._dtype)
        with self._autocast():
            output: Tensor = self.unet(
                x.contiguous(memory_format=torch.channels_last), time, text
            ).sample
        return output.float()

    @torch.no_grad()
    def _embed(self, text: str) -> Tensor:
        """(tokens, width)"""
        limits = {"padding": "max_length", "truncation": True, "max_length": self.max_tokens}
        tokens = self.tokenizer(text, return_tensors="pt", **limits).input_ids
        embedding: Tensor = self.text_encoder(tokens.to(self.device)).last_hidden_state[0].float()
        return embedding

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        dtype = PRECISIONS[self.options.precision]
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)

    def _latent_size(self) -> int:
        """Of one side, as the model was trained or as asked."""
        pixels_per_latent = 2 ** (len(self.vae.config.block_out_channels) - 1)
        pixels = self.options.size_pixels or self.unet.config.sample_size * pixels_per_latent
        step = pixels_per_latent * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if pixels % step:
            raise ConfigError(
                f"model.size_pixels: {pixels} is not a multiple of {step}, which this model's"
                " layers need."
            )
        return int(pixels // pixels_per_latent)

    def _placed(self, network: Network) -> Network:
        network = network.requires_grad_(False).eval().to(self.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def sort_header(path: Path) -> None:
    """Equal weights become equal bytes: safetensors writes its metadata in an order that changes
    from run to run.
    """
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":"))
    path.write_bytes(content[:8] + header.encode().ljust(end - 8) + content[end:])


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
