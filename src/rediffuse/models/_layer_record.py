"""The gradients of each sample of a batch, from what the adapted layers saw in a forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.models._lora import Adapted

_RECORD: ContextVar["LayerRecord | None"] = ContextVar("layer record", default=None)
"""Of the thread's present forward pass; worker threads share the layers."""


class LayerRecord:
    """The inputs and outputs of adapted layers in forward passes."""

    def __init__(self) -> None:
        self._calls: list[tuple[Adapted, Tensor, Tensor]] = []

    def add(self, layer: Adapted, inputs: Tensor, output: Tensor) -> None:
        """Notes one call of a layer."""
        self._calls.append((layer, inputs.detach(), output))

    def gradients(self, values: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yields for each factor of an adapter its name and the gradients (N, *weight) of each
        sample's value.

        In the layers the rows of one sample lie N apart: with classifier-free guidance it has two.

        Args:
            values: Shape (N,), one for each sample, computed by the recorded forward passes. They
                can be used once.
        """
        calls, self._calls = self._calls, []
        outputs = [output for *_, output in calls]
        found = torch.autograd.grad(values.sum(), outputs, allow_unused=True)
        for (layer, inputs, _), gradients in zip(calls, found, strict=True):
            if gradients is not None:
                factors = layer.sample_gradients(inputs, gradients)
                for name, each in zip(layer.names, factors, strict=True):
                    yield name, each.unflatten(0, (-1, len(values))).sum(0)


def is_recording() -> bool:
    """Whether this thread's forward pass is recorded."""
    return _RECORD.get() is not None


def watch(layers: Sequence[Adapted]) -> None:
    """Lets the layers note their calls in the present record, if there is one."""
    for adapted in layers:

        def note(
            _: nn.Module, inputs: tuple[Any, ...], output: Tensor, adapted: Adapted = adapted
        ) -> None:
            if (record := _RECORD.get()) is not None:
                if not output.requires_grad:  # the first layer that learns
                    output.requires_grad_()
                record.add(adapted, inputs[0], output)

        adapted.layer.register_forward_hook(note)


@contextmanager
def recorded() -> Iterator[LayerRecord]:
    """Records the calls of layers that are watched, in this thread inside the context."""
    record = LayerRecord()
    token = _RECORD.set(record)
    try:
        yield record
    finally:
        _RECORD.reset(token)
