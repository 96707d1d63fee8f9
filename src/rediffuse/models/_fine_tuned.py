"""Training and export of a network of diffusers: an adapter or all weights, in some precision."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from rediffuse.errors import ConfigError
from rediffuse.maths import noise
from rediffuse.models import _layer_record
from rediffuse.models._checkpointing import checkpoint_blocks
from rediffuse.models._fused import fuse, kept_merged
from rediffuse.models._lora import adapted_layers
from rediffuse.models._master_weights import compute_in_network_precision
from rediffuse.models._options import TrainingOptions
from rediffuse.models._quantized import quantize
from rediffuse.types import ModelCard, Weights

Network = TypeVar("Network", bound=nn.Module)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

ADAPTER_OF_PEFT = """\
```python
from diffusers import {pipeline}
from peft import PeftModel

pipeline = {pipeline}.from_pretrained(BASE_MODEL)
tuned = PeftModel.from_pretrained(pipeline.{part}, THIS_FOLDER)
pipeline.{part} = tuned.merge_and_unload()
```"""


def network_dtype(options: TrainingOptions) -> torch.dtype:
    """Returns the dtype of the pretrained networks. Weights that are trained are always fp32."""
    return PRECISIONS[options.precision if options.train == "lora" else "fp32"]


class FineTuned:
    """The part of a `Denoiser` that all networks of diffusers share: everything but conditioning,
    prediction and the conversion of latents to samples.

    Attributes:
        network: The network that predicts: the trained one or, within `using`, the pretrained one.
        part: The folder of the network in a pipeline.
        pipeline: The class of diffusers that loads such models.
        has_sample_gradients: Whether `recorded` covers all trained parameters: an adapter's, unless
            activations are computed again in the backward pass.
    """

    part = "unet"
    pipeline: str

    def __init__(
        self,
        network: Any,
        again: Callable[[], Any],
        options: TrainingOptions,
        device: str,
        seed: int,
    ) -> None:
        """Prepares a network for training.

        Args:
            network: The pretrained network.
            again: Loads it once more.
            options: What is trained.
            device: The device to place it on.
            seed: Of the adapter's initial weights.
        """
        self.options, self.device = options, torch.device(device)
        self.precision, self._dtype = options.precision, network_dtype(options)
        self.needs_loss_scaling = options.precision == "fp16"
        if options.quantize:
            quantize(network, options.quantize, self._dtype)
        self.network = self._placed(network)
        self._again, self._pretrained = again, None
        if options.gradient_checkpointing is True:
            self.network.enable_gradient_checkpointing()
        elif options.gradient_checkpointing:
            checkpoint_blocks(self.network, options.gradient_checkpointing)
        if options.train == "lora":
            self._add_adapter(seed)
        else:
            self.network.requires_grad_(True)
        self._learning = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        self._layers = adapted_layers(self.network) if options.train == "lora" else []
        covered = {name for layer in self._layers for name in layer.names} == self._learning.keys()
        self.has_sample_gradients = covered and not options.gradient_checkpointing
        whole = self._dtype == torch.float32 and not options.quantize
        self._fused = self._layers if covered and whole else []
        fuse(self._fused)
        _layer_record.watch(self._layers)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._learning

    def recorded(self) -> AbstractContextManager[_layer_record.LayerRecord]:
        return _layer_record.recorded()

    def merged(self) -> AbstractContextManager[None]:
        return kept_merged(self._fused)

    @contextmanager
    def using(self, weights: Weights) -> Iterator[None]:
        """Disables the adapter. If all weights are trained, the pretrained network is loaded on the
        first use and takes the place of the trained one.
        """
        if self.options.train == "lora":
            self._switch_adapter(on=False)
            try:
                yield
            finally:
                self._switch_adapter(on=True)
        else:
            if self._pretrained is None:
                self._pretrained = self._placed(self._again())
            tuned, self.network = self.network, self._pretrained
            try:
                yield
            finally:
                self.network = tuned

    def export(self, folder: Path) -> None:
        """Writes the whole network, or the adapter in the format of peft, which
        `PeftModel.from_pretrained` loads onto the pretrained network.
        """
        if self.options.train == "full":
            self.network.save_pretrained(folder / self.part)
            return
        lora = get_peft_model_state_dict(self.network)
        save_file(
            {f"base_model.model.{name}": value.cpu() for name, value in lora.items()},
            folder / "adapter_model.safetensors",
            {"format": "pt"},
        )
        config = json.dumps(self._adapter_metadata(), indent=2, sort_keys=True)
        (folder / "adapter_config.json").write_text(config)

    def model_card(self) -> ModelCard:
        if self.options.train == "lora":
            return ModelCard(self._adapter_usage(), "diffusers", ("diffusers", "lora"))
        load = (
            f'{type(self.network).__name__}.from_pretrained(THIS_FOLDER, subfolder="{self.part}")'
        )
        usage = f"`{self.part}/` replaces that of the base model: `{load}`."
        return ModelCard(usage, "diffusers", ("diffusers",))

    def _adapter_usage(self) -> str:
        return ADAPTER_OF_PEFT.format(pipeline=self.pipeline, part=self.part)

    @property
    def lora_alpha(self) -> float:
        """The scale of the adapter; by default its rank."""
        return self.options.lora_alpha or self.options.lora_rank

    def _adapter_metadata(self) -> dict[str, Any]:
        """Returns the adapter's configuration, without which a file of tensors reloads at the wrong
        strength.
        """
        config = self.network.peft_config["default"].to_dict()
        return {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}

    def _switch_adapter(self, *, on: bool) -> None:
        for module in self.network.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(enabled=on)

    def _add_adapter(self, seed: int) -> None:
        options = self.options
        config = LoraConfig(
            r=options.lora_rank,
            lora_alpha=self.lora_alpha,
            target_modules=list(options.lora_targets),
            init_lora_weights="gaussian",
        )
        # of networks for which diffusers loads LoRA files, and so keeps a record of adapters
        add = getattr(self.network, "add_adapter", None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise.generator(seed, "adapter").initial_seed())
            try:
                add(config) if add else inject_adapter_in_model(config, self.network)
            except ValueError as error:
                raise ConfigError(f"model.lora_targets: {error}") from error
        for parameter in self.network.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if self._dtype != torch.float32:
            compute_in_network_precision(self.network)

    def _output(self, x: Tensor, time: Tensor, *seen: Tensor) -> Tensor:
        """Returns the network's output (N, *L) in fp32. seen: its inputs besides state and time.

        A network whose own weights are bf16 or fp16 runs as it is: autocast would compute and keep
        its normalisations in fp32 on a GPU. Only weights that are all trained, and therefore fp32,
        need it.
        """
        x = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        trained = self._dtype == torch.float32
        with self._autocast() if trained else nullcontext():
            inputs = (each.to(self._dtype) for each in seen)
            output: Tensor = self.network(x, time, *inputs).sample
        return output.float()

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        dtype = PRECISIONS[self.options.precision]
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device.type, dtype)

    def _placed(self, network: Network, device: torch.device | None = None) -> Network:
        """Returns the network, frozen, on the device; None: on that of the run."""
        network = network.requires_grad_(False).eval().to(device or self.device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def sort_header(path: Path) -> None:
    """Equal weights become equal bytes: safetensors writes its metadata in an order that changes
    from run to run.
    """
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":"))
    path.write_bytes(content[:8] + header.encode().ljust(end - 8) + content[end:])
