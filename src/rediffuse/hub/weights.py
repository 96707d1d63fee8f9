"""Checks that a model was loaded completely. Libraries initialise missing tensors and drop unknown
ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from rediffuse.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

OTHERWISE = "It is another model, or a damaged copy of this one."
NOT_WEIGHTS = ("position_ids", "inv_freq")
"""Suffixes of the names of constants that older files contain."""


def refuse_incomplete(
    key: str,
    where: object,
    network: nn.Module,
    info: Mapping[str, Any],
    unused: Collection[str] = (),
    *,
    heads: bool = False,
) -> None:
    """Checks that every tensor of a network was loaded from its files and is finite.

    Args:
        key: The configuration option that names the files, for error messages.
        where: The files' location, for error messages.
        network: The network that was loaded.
        info: The loading info of `from_pretrained(output_loading_info=True)`.
        unused: Substrings of the names of tensors that may be missing because they are not used.
        heads: Whether the files may contain more than the network, such as the head of another
            task.

    Raises:
        ConfigError: A tensor is missing, unknown, of another shape or not finite.
    """
    missing = [
        name for name in map(str, info["missing_keys"]) if not any(word in name for word in unused)
    ]
    mismatched = [
        str(each[0] if isinstance(each, tuple) else each)
        for each in info.get("mismatched_keys", ())
    ]
    unexpected = [
        name for name in map(str, info["unexpected_keys"]) if not name.endswith(NOT_WEIGHTS)
    ]
    for what, names in (
        ("lacks", missing),
        ("has the wrong shape for", mismatched),
        ("is not expected to have", () if heads else unexpected),
    ):
        if names:
            number = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
            raise ConfigError(
                f"{key}: {where} {what} {number}, first {min(names)}. It is another model, or a"
                " damaged copy of this one."
            )
    refuse_not_filled(key, where, network, unused)


def refuse_not_filled(
    key: str, where: object, network: nn.Module, unused: Collection[str] = ()
) -> None:
    """Raises ConfigError if a tensor was not loaded or is not finite; the arguments are as in
    `refuse_incomplete`.
    """
    for name, value in network.state_dict().items():
        if any(word in name for word in unused):
            continue
        if value.is_meta:
            raise ConfigError(
                f"{key}: {where} lacks {name}, perhaps among others. It is another model, or a"
                " damaged copy of this one."
            )
        if value.is_floating_point() and not value.isfinite().all():
            raise ConfigError(
                f"{key}: {name} in {where} is not finite: a damaged copy, or half precision that"
                " overflowed when it was saved."
            )
