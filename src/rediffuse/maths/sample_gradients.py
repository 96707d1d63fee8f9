"""Gradients of each sample's own loss with respect to the weights of a layer.

A layer's inputs and the gradients of its outputs suffice (Goodfellow 2015, arXiv:1510.01799), so
that one backward pass over a batch gives the gradients of all its samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor


def linear(inputs: Tensor, gradients: Tensor) -> Tensor:
    """Returns the gradients of a linear layer's weight, shape (N, out, in).

    Args:
        inputs: Shape (N, *, in).
        gradients: Those of the outputs, shape (N, *, out).
    """
    rows = len(inputs)
    left = gradients.reshape(rows, -1, gradients.shape[-1])
    right = inputs.reshape(rows, -1, inputs.shape[-1])
    return torch.bmm(left.transpose(1, 2), right)


def conv2d(layer: nn.Conv2d, inputs: Tensor, gradients: Tensor) -> Tensor:
    """Returns the gradients of a convolution's weight, shape (N, out, in, *kernel).

    Args:
        layer: A convolution without groups, padded by zeros.
        inputs: Shape (N, in, H, W).
        gradients: Those of the outputs, shape (N, out, H', W').
    """
    size, channels = layer.kernel_size, (layer.out_channels, layer.in_channels)
    padding = cast(tuple[int, int], layer.padding)
    is_plain = layer.stride == layer.dilation == (1, 1)
    if is_plain and size == (1, 1) and padding == (0, 0):
        found = torch.bmm(gradients.flatten(2), inputs.flatten(2).transpose(1, 2))
    elif is_plain and layer.out_channels <= layer.in_channels and _is_near(layer):
        return _from_few_outputs(layer, inputs, gradients)
    else:
        patches = torch.nn.functional.unfold(inputs, size, layer.dilation, padding, layer.stride)
        found = torch.bmm(gradients.flatten(2), patches.transpose(1, 2))
    return found.view(len(inputs), *channels, *size)


def _is_near(layer: nn.Conv2d) -> bool:
    """Whether each output sees a part of the image."""
    pairs = zip(cast(tuple[int, int], layer.padding), layer.kernel_size, strict=True)
    return all(padding < size for padding, size in pairs)


def _from_few_outputs(layer: nn.Conv2d, inputs: Tensor, gradients: Tensor) -> Tensor:
    """The same gradients from patches of the outputs' gradients, which for a low rank are much
    smaller than those of the inputs: the sum over positions is that of `conv2d`, shifted.
    """
    height, width = layer.kernel_size
    padding = cast(tuple[int, int], layer.padding)
    around = (height - 1 - padding[0], width - 1 - padding[1])
    patches = torch.nn.functional.unfold(gradients, (height, width), padding=around)
    found = torch.bmm(patches, inputs.flatten(2).transpose(1, 2))
    shape = (len(inputs), layer.out_channels, height, width, layer.in_channels)
    return found.view(shape).flip(2, 3).permute(0, 1, 4, 2, 3)


def is_supported(layer: nn.Module) -> bool:
    """Whether this module knows the gradients of the layer's weight."""
    if isinstance(layer, nn.Conv2d):
        padded = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return layer.groups == 1 and padded
    return isinstance(layer, nn.Linear)


def of_layer(layer: nn.Module, inputs: Tensor, gradients: Tensor) -> Tensor:
    """Returns the gradients (N, *weight) of a supported layer's weight, in fp32. They are computed
    in the narrower precision of the two, as by the layer itself under autocast.
    """
    narrower = min(inputs.dtype, gradients.dtype, key=lambda dtype: dtype.itemsize)
    inputs, gradients = inputs.to(narrower), gradients.to(narrower)
    if isinstance(layer, nn.Conv2d):
        return conv2d(layer, inputs, gradients).float()
    return linear(inputs, gradients).float()
