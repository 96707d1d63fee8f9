"""Random generators seeded by a key that names their purpose, so that draws never depend on earlier
draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor


def generator(*key: int | str) -> torch.Generator:
    """Returns a CPU generator seeded by a hash of the key, e.g. (seed, epoch, "noise", sample
    index).
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Draws standard normal noise (B, *shape), each row from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=each) for each in generators])
