"""Adapters whose weights are fp32 and which compute in the precision of the network."""

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F


class MasterLinear(nn.Linear):
    """A linear layer without bias that rounds a copy of its weight to its input's precision."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype))


class MasterConv2d(nn.Conv2d):
    """A convolution without bias that rounds a copy of its weight to its input's precision."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self._conv_forward(input, self.weight.to(input.dtype), None)
        return output


MASTERS: dict[type, type] = {nn.Linear: MasterLinear, nn.Conv2d: MasterConv2d}


def compute_in_network_precision(network: nn.Module) -> None:
    """Makes the adapters of a network in bf16 or fp16 compute in its precision; their weights stay
    fp32, and so does what an optimizer adds to them.

    By default, peft converts the input of each adapter to the precision of the adapter's weights:
    the backward pass then holds the input of an adapted layer once more, twice as wide.
    """
    for layer in network.modules():
        if not isinstance(layer, LoraLayer):
            continue
        factors = (*layer.lora_A.values(), *layer.lora_B.values())
        if all(type(factor) in MASTERS for factor in factors):
            layer.cast_input_dtype_enabled = False
            for factor in factors:
                factor.__class__ = MASTERS[type(factor)]
