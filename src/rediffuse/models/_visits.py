"""Frozen networks that live on the host and visit the device only to compute."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

OWN_MEMORY = ("cuda", "xpu")
"""Devices with memory of their own: a network that leaves others frees nothing."""


def home_of(device: torch.device) -> torch.device:
    """Returns where a network lives that is seldom used, in a run on this device."""
    return torch.device("cpu") if device.type in OWN_MEMORY else device


@contextmanager
def visiting(network: nn.Module, device: torch.device) -> Iterator[Callable[..., Any]]:
    """Within the context, a frozen network computes on the device.

    The weights are copied there and dropped at the end; those on the host stay as they are, so
    nothing is copied back. Only one thread may do this with a network at a time.

    Yields:
        The network, as a function of inputs on the device.
    """
    tensors = dict(chain(network.named_parameters(), network.named_buffers()))
    if all(each.device == device for each in tensors.values()):
        yield network
        return
    visitors = {name: each.to(device, non_blocking=True) for name, each in tensors.items()}
    try:
        yield lambda *inputs: functional_call(network, visitors, inputs)
    finally:
        visitors.clear()
