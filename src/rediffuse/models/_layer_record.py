"""The gradients of each sample of a batch, from what the trained layers saw in a forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.maths import sample_gradients

_RECORD: ContextVar["LayerRecord | None"] = ContextVar("layer record", default=None)
"""Of the thread's present forward pass; worker threads share the layers."""


@dataclass(frozen=True)
class LayerRecord:
    """The inputs and outputs of the trained layers in forward passes.

    Attributes:
        layers: The layers, by the names of their weights.
    """

    layers: Mapping[str, nn.Module]
    _seen: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def add(self, name: str, inputs: Tensor, output: Tensor) -> None:
        """Notes one call of a layer."""
        self._seen.setdefault(name, []).append((inputs.detach(), output))

    def gradients(self, values: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yields for each weight its name and the gradients (N, *weight) of each sample's value.

        In the layers the rows of one sample lie N apart: with classifier-free guidance it has two.

        Args:
            values: Shape (N,), one for each sample, computed by the recorded forward passes. They
                can be used once.
        """
        calls = [(name, *each) for name, found in self._seen.items() for each in found]
        outputs = [output for *_, output in calls]
        found = torch.autograd.grad(values.sum(), outputs, allow_unused=True)
        for (name, inputs, _), gradients in zip(calls, found, strict=True):
            if gradients is not None:
                each = sample_gradients.of_layer(self.layers[name], inputs, gradients)
                yield name, each.unflatten(0, (-1, len(values))).sum(0)


def watch(layers: Mapping[str, nn.Module]) -> None:
    """Lets the layers note their calls in the present record, if there is one."""
    for name, layer in layers.items():

        def note(_: nn.Module, inputs: tuple[Any, ...], output: Tensor, name: str = name) -> None:
            if (record := _RECORD.get()) is not None:
                record.add(name, inputs[0], output)

        layer.register_forward_hook(note)


@contextmanager
def recorded(layers: Mapping[str, nn.Module]) -> Iterator[LayerRecord]:
    """Records the calls of layers that are watched, in this thread inside the context."""
    record = LayerRecord(layers)
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)
