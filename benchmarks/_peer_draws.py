"""Random draws that are given to the peer of benchmarks/peer.py, instead of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors.torch import load_file


@contextmanager
def given_draws(path: str | None, batch: int) -> Iterator[None]:
    """Inside, `torch.randn` and the first `torch.randperm` give the draws of a file, in the order
    in which TRL's trainer calls them: for each batch the first state and then the noise of each
    step; after the samples' order, that of each sample's steps, which changes nothing, since each
    update trains on all of them.

    Args:
        path: A file with `noise` (images, steps + 1, *L) and `order` (images,); None: the draws are
            the trainer's own.
        batch: The batch size of sampling.
    """
    if path is None:
        yield
        return
    given = load_file(path)
    rows = given["noise"].split(batch)
    noise = iter([each[:, step] for each in rows for step in range(each.shape[1])])
    orders = iter([given["order"]])
    randn, randperm = torch.randn, torch.randperm
    torch.randn = lambda *_, **__: next(noise)  # type: ignore[assignment]
    torch.randperm = lambda n, **_: next(orders, torch.arange(n))  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.randn, torch.randperm = randn, randperm
