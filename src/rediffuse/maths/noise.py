"""Randomness by key: every draw comes from a generator seeded by what it is for, never by what came
before.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that depends on the key alone, e.g. (seed, epoch, "noise", sample index)."""
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """(B, *shape) standard normal: one row from each generator, whoever its neighbours are."""
    return torch.stack([torch.randn(tuple(shape), generator=each) for each in generators])
