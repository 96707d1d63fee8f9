"""An adapter added to the weights of its network for a while, which makes predictions faster."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import nn


@contextmanager
def merged(network: nn.Module) -> Iterator[None]:
    """Within the context, the weights of the adapted layers contain the adapter, and no gradient
    reaches it.

    The weights themselves are put back at the end, not computed back. All threads that share the
    network see the same.
    """
    kept: list[tuple[nn.Module, torch.Tensor]] = []
    layers = [each for each in network.modules() if isinstance(each, LoraLayer)]
    try:
        for layer in layers:
            base, weight = layer.get_base_layer(), layer.get_base_layer().weight.data
            kept.append((base, weight))
            changed = weight.clone()  # in its memory format
            for adapter in layer.active_adapters:
                changed += layer.get_delta_weight(adapter).detach()
            base.weight.data = changed
        for layer in layers:
            layer.enable_adapters(enabled=False)
        yield
    finally:
        for base, weight in kept:
            base.weight.data = weight
        for layer in layers:
            layer.enable_adapters(enabled=True)
