"""Ways to choose n of a list of prompts."""

from collections.abc import Sequence

import torch

from rediffuse.types import Prompt


def chosen(prompts: Sequence[Prompt], n: int, generator: torch.Generator, *, balanced: bool) -> list[Prompt]:
    """Independent draws; or, balanced, every prompt as often as every other, give or take one."""
    if not balanced:
        return [prompts[i] for i in torch.randint(len(prompts), (n,), generator=generator).tolist()]
    rounds = -(-n // len(prompts))
    order = [i for _ in range(rounds) for i in torch.randperm(len(prompts), generator=generator).tolist()]
    return [prompts[i] for i in order[:n]]
