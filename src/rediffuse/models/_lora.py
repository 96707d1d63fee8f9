"""LoRA layers of peft, and the arithmetic of their factors and gradients."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import grad

from rediffuse.maths import sample_gradients

ADAPTER = "default"
"""The name of the trained adapter in peft."""


@dataclass(eq=False)
class Adapted:
    """A linear layer or a convolution with an adapter: its weight is base + scale · up · down.

    Attributes:
        name: The name of the layer in the network.
        layer: The layer of peft.
        base: The frozen layer.
        down: The factor that is applied first, of the kind of `base`.
        up: The second factor, a linear layer or a convolution of one pixel.
        scale: The strength of the adapter.
    """

    name: str
    layer: Any
    base: Any
    down: Any
    up: Any
    scale: float
    _kept: tuple[tuple[int, ...], Tensor] | None = None

    @property
    def names(self) -> tuple[str, str]:
        """The names of the weights of `down` and `up` in the network."""
        return f"{self.name}.lora_A.{ADAPTER}.weight", f"{self.name}.lora_B.{ADAPTER}.weight"

    def merged_weight(self) -> Tensor:
        """Returns the weight with the adapter, in the memory format of convolutions that
        `channels_last` networks use.
        """
        up, down = self.up.weight.flatten(1), self.down.weight
        if isinstance(self.base, nn.Linear):
            return torch.addmm(self.base.weight, up, down, alpha=self.scale)
        last = self.base.weight.permute(0, 2, 3, 1)
        flat = torch.addmm(
            last.reshape(len(last), -1),
            up,
            down.permute(0, 2, 3, 1).reshape(len(down), -1),
            alpha=self.scale,
        )
        return flat.view(last.shape).permute(0, 3, 1, 2)

    def keep_merged(self, *, on: bool) -> None:
        """Keeps the merged weight until a factor changes, or drops it."""
        self._kept = (self._state(), self.merged_weight()) if on else None

    def kept_or_merged(self) -> Tensor:
        """Returns the merged weight, computed anew unless it is kept."""
        kept = self._kept
        if kept is not None and kept[0] == self._state():
            return kept[1]
        return self.merged_weight()

    def _state(self) -> tuple[int, ...]:
        """Changes whenever torch writes to a factor."""
        factors = (self.down.weight, self.up.weight)
        return tuple(n for each in factors for n in (each._version, each.data_ptr()))

    def apply(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Returns the output of the base layer with another weight."""
        base = self.base
        if isinstance(base, nn.Linear):
            return F.linear(inputs, weight, base.bias)
        return F.conv2d(inputs, weight, base.bias, base.stride, base.padding, base.dilation)

    def input_gradient(self, gradients: Tensor, weight: Tensor, inputs: Tensor) -> Tensor:
        """Returns the gradient of the inputs from that of the output."""
        base = self.base
        if isinstance(base, nn.Linear):
            return torch.matmul(gradients, weight)
        size, padding = inputs.shape, base.padding
        found: Tensor = grad.conv2d_input(
            size, weight, gradients, base.stride, padding, base.dilation
        )
        return found

    def factor_gradients(self, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gradients of the weights of both factors from that of the output."""
        below = self._below_up(gradients)
        above = self.down(inputs)
        up = (self.scale * self._rows(gradients).T @ self._rows(above)).view_as(self.up.weight)
        if isinstance(self.base, nn.Linear):
            return self._rows(below).T @ self._rows(inputs), up
        base, shape = self.base, self.down.weight.shape
        down = grad.conv2d_weight(inputs, shape, below, base.stride, base.padding, base.dilation)
        return down, up

    def sample_gradients(self, inputs: Tensor, gradients: Tensor) -> Iterator[Tensor]:
        """Yields the gradients (N, *weight) of both factors for each row of the batch."""
        yield sample_gradients.of_layer(self.down, inputs, self._below_up(gradients))
        yield self.scale * sample_gradients.of_layer(self.up, self.down(inputs), gradients)

    def _rows(self, features: Tensor) -> Tensor:
        """Returns features (M, channels) of all positions of a batch."""
        last = features if isinstance(self.base, nn.Linear) else features.permute(0, 2, 3, 1)
        return last.reshape(-1, last.shape[-1])

    def _below_up(self, gradients: Tensor) -> Tensor:
        """Returns the gradient of the output of `down`."""
        weight = self.scale * self.up.weight.to(gradients.dtype)
        if isinstance(self.base, nn.Linear):
            return torch.matmul(gradients, weight)
        return F.conv2d(gradients, weight.transpose(0, 1))


def adapted_layers(network: nn.Module) -> list[Adapted]:
    """Returns the layers with an adapter that are plain LoRA: linear, or convolutions without
    groups.
    """
    found = []
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLayer) and ADAPTER in layer.lora_A:
            down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
            base = layer.get_base_layer()
            plain = not layer.lora_variant and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
            if plain and all(map(sample_gradients.is_supported, (base, down, up))):
                found.append(Adapted(name, layer, base, down, up, layer.scaling[ADAPTER]))
    return found
