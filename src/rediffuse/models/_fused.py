"""LoRA layers in fp32 that add the adapter to their weight instead of to their output.

The result is the same up to the last digits, in sampling as in training. A pass through the layer
costs that of the base layer alone, and adding two small matrices to a weight costs little.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rediffuse.models._layer_record import is_recording
from rediffuse.models._lora import Adapted

MOST_BYTES = 256_000_000
"""The most bytes of merged weights that are kept at once."""


def fuse(layers: Sequence[Adapted]) -> None:
    """Replaces the forward passes of LoRA layers, whose base layers are in fp32."""
    for each in layers:
        each.layer.forward = _forward_of(each)


@contextmanager
def kept_merged(layers: Sequence[Adapted]) -> Iterator[None]:
    """Within the context the trained weights do not change, so that merged weights are computed
    once, unless they are too large to keep.
    """
    num_bytes = sum(each.base.weight.nbytes for each in layers)
    fitting = layers if num_bytes <= MOST_BYTES else ()
    try:
        with torch.no_grad():
            for each in fitting:
                each.keep_merged(on=True)
        yield
    finally:
        for each in fitting:
            each.keep_merged(on=False)


def _forward_of(adapted: Adapted) -> Callable[[Tensor], Tensor]:
    layer = adapted.layer

    def forward(inputs: Tensor) -> Tensor:
        if layer.disable_adapters:
            output: Tensor = layer.base_layer(inputs)
            return output
        down, up = adapted.down.weight, adapted.up.weight
        if is_recording():  # its gradients come from the record
            down, up = down.detach(), up.detach()
        fused: Tensor = _Fused.apply(inputs, down, up, adapted)  # type: ignore[no-untyped-call]
        return fused

    return forward


class _Fused(torch.autograd.Function):
    """The output of an adapted layer, with the gradients of its input and of the adapter."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, down: Tensor, up: Tensor, adapted: Adapted) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.adapted = adapted
        return adapted.apply(inputs, adapted.kept_or_merged())

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs,) = ctx.saved_tensors
        adapted: Adapted = ctx.adapted
        of_inputs, of_down, of_up = None, None, None
        if ctx.needs_input_grad[0]:
            of_inputs = adapted.input_gradient(gradients, adapted.kept_or_merged(), inputs)
        if ctx.needs_input_grad[1]:
            of_down, of_up = adapted.factor_gradients(inputs, gradients)
        return of_inputs, of_down, of_up, None
