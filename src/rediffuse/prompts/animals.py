"""The 45 common animals of DDPO's aesthetic and alignment tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from rediffuse.prompts._draw import chosen
from rediffuse.types import Prompt

__all__ = ["Animals"]

NAMES = (
    "cat", "dog", "horse", "monkey", "rabbit", "zebra", "spider", "bird", "sheep", "deer", "cow", "goat", "lion", "tiger", "bear",
    "raccoon", "fox", "wolf", "lizard", "beetle", "ant", "butterfly", "fish", "shark", "whale", "dolphin", "squirrel", "mouse",
    "rat", "snake", "turtle", "frog", "chicken", "duck", "goose", "bee", "pig", "turkey", "fly", "llama", "camel", "bat",
    "gorilla", "hedgehog", "kangaroo",
)  # fmt: skip


@dataclass(frozen=True)
class Animals:
    """article: "a cat" and "an ant"; the published aesthetic task has the bare noun.

    balanced: every animal equally often in an epoch, instead of independent draws.
    """

    article: bool = True
    balanced: bool = False

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        prompts = [Prompt(with_article(name) if self.article else name) for name in NAMES]
        return chosen(prompts, n, generator, balanced=self.balanced)


@cache
def with_article(noun: str) -> str:
    import inflect  # seconds to import, so not before a prompt is drawn

    return inflect.engine().a(noun)
