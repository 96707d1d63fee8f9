"""The gradients of each sample of a batch, from what the adapted layers saw in a forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from rediffuse.models._lora import Adapted

_RECORD: ContextVar["LayerRecord | None"] = ContextVar("layer record", default=None)
"""Of the thread's present forward pass; worker threads share the layers."""


Receive = Callable[[str, Tensor], None]


class LayerRecord:
    """The inputs and outputs of adapted layers in forward passes."""

    def __init__(self) -> None:
        self._begins: list[Tensor] = []
        self._num_samples = 0
        self._receive: Receive = _nobody

    def add(self, layer: Adapted, inputs: Tensor, output: Tensor) -> None:
        """Notes one call of a layer, whose gradients are computed as soon as the backward pass
        reaches it, so that they are not held for all layers at once.
        """
        if not inputs.requires_grad:  # nothing below it learns
            self._begins.append(output if output.requires_grad else output.requires_grad_())
        held = [inputs.detach()]
        output.register_hook(lambda gradients: self._found(layer, held.pop(), gradients))

    def gradients(self, values: Tensor, receive: Receive) -> None:
        """Computes the gradients of each sample's value.

        In the layers the rows of one sample lie N apart: with classifier-free guidance it has two.

        Args:
            values: Shape (N,), one for each sample, computed by the recorded forward passes. They
                can be used once.
            receive: Called with the name of each factor of an adapter and its gradients
                (N, *weight); those that no value depends on are left out.
        """
        self._num_samples, self._receive = len(values), receive
        begins, self._begins = self._begins, []
        try:
            torch.autograd.grad(values.sum(), begins, allow_unused=True)
        finally:  # the graph's hooks know this record: it must not know the graph or the receiver
            self._receive = _nobody

    def _found(self, layer: Adapted, inputs: Tensor, gradients: Tensor) -> None:
        with torch.no_grad():
            factors = layer.sample_gradients(inputs, gradients)
            for name, each in zip(layer.names, factors, strict=True):
                self._receive(name, each.unflatten(0, (-1, self._num_samples)).sum(0))


def _nobody(name: str, gradients: Tensor) -> None:
    raise AssertionError(f"the gradients of {name} were not asked for")


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
