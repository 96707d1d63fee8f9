"""Networks whose frozen linear layers are held in 8 or 4 bits, by bitsandbytes."""

import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from rediffuse.errors import ConfigError
from rediffuse.models._options import TrainingOptions

OF_EACH_CALL = "bitsandbytes.autograd._functions"
"""The logger of bitsandbytes that repeats in each call that inputs are converted to fp16."""


def refuse_impossible(options: TrainingOptions) -> None:
    """Raises ConfigError if the options ask for quantised weights that cannot be had; to be called
    before a model is loaded.
    """
    if options.quantize is None:
        return
    if options.train == "full":
        raise ConfigError(
            f"model.quantize: {options.quantize} holds frozen weights, but model.train full trains"
            " them all. Use --model.train lora, or leave it out."
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"model.quantize: {options.quantize} needs bitsandbytes, which is not installed:"
            " pip install 'rediffuse[bnb]'"
        )


def quantize(network: nn.Module, kind: str, dtype: torch.dtype) -> None:
    """Replaces the linear layers of a network by quantised ones, but those that it begins or ends
    with. Their weights are quantised when they are moved to a device.

    Args:
        network: The pretrained network, on the host.
        kind: int8 or nf4.
        dtype: What the layers compute in.
    """
    logging.getLogger(OF_EACH_CALL).setLevel(logging.ERROR)
    found = {name: each for name, each in network.named_modules() if type(each) is nn.Linear}
    for name, layer in found.items():
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(network.get_submodule(parent), own, _quantized(layer, kind, dtype))


def _quantized(layer: nn.Linear, kind: str, dtype: torch.dtype) -> Any:
    from bitsandbytes import nn as bits

    shape = (layer.in_features, layer.out_features, layer.bias is not None)
    weight = layer.weight.detach().contiguous()
    made: Any
    with torch.device("meta"):  # no weights that are then replaced
        if kind == "nf4":
            made = bits.Linear4bit(*shape, compute_dtype=dtype, quant_type="nf4")
        else:
            made = bits.Linear8bitLt(*shape, has_fp16_weights=False)
    if kind == "nf4":
        made.weight = bits.Params4bit(weight, requires_grad=False, quant_type="nf4", module=made)
        # a layout for inference alone, into which the first of several threads would convert it
        made.support_avx512bf16_for_cpu = False
    else:
        made.weight = bits.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    made.bias = layer.bias
    return made
