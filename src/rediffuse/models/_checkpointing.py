"""Gradient checkpointing of some blocks of a network: which recompute their activations."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from rediffuse.errors import ConfigError, did_you_mean


def block_names(network: nn.Module) -> list[str]:
    """Returns the names of the blocks that can be checkpointed: `down_blocks.0` … of U-Nets,
    `transformer_blocks.0` … of transformers.
    """
    return list(_blocks(network))


def checkpoint_blocks(network: Any, names: Sequence[str]) -> None:
    """Makes these blocks recompute their activations in the backward pass; the gradient is the same
    to the bit.

    Raises:
        ConfigError: The network has no such block.
    """
    known = block_names(network)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"model.gradient_checkpointing: no block {name!r} in this network; there are"
                f" {', '.join(known)}.{did_you_mean(name, known)}"
            )
    chosen = {part for name in names for part in network.get_submodule(name).modules()}

    def call(part: nn.Module, *inputs: Any) -> Any:
        if part in chosen:
            return checkpoint(part.__call__, *inputs, use_reentrant=False)
        return part(*inputs)

    network.enable_gradient_checkpointing(call)


def _blocks(network: nn.Module) -> Iterator[str]:
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            yield from (f"{name}.{number}" for number in range(len(child)))
        elif hasattr(child, "gradient_checkpointing"):
            yield name
