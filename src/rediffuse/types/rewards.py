"""What rewards and prompt sets can do."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rediffuse.types.data import Judgement, Prompt


class PromptSet(Protocol):
    """Prompts to draw from, by a generator that is given."""

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]: ...


class Reward(Protocol):
    """Scores samples: a function, or what the options of a reward load.

    One that judges a single kind of sample has an attribute `judges`, the name of that modality.
    One through which gradients flow from its values to the samples has `differentiable = True`.
    """

    def __call__(self, samples: Tensor, prompts: Sequence[Prompt], /) -> Tensor | Judgement:
        """samples (B, *S), images are (B, 3, H, W) in [0, 1] -> (B,), higher is better; NaN where
        it cannot say.
        """
        ...


@runtime_checkable
class RewardFamily(Protocol):
    """The options of a reward with a model of its own; loading is a second act, after the whole
    configuration was checked. What it returns may have `pinned`, a mapping of options that loading
    made exact, such as the commit that a branch stood for.
    """

    def load(self, device: str) -> Reward:
        """Loads the model; called once, before anything is sampled. Raises ConfigError."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A reward whose network can tell how alike pictures are."""

    def features(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> (B, D), on the host; far apart where the pictures
        differ.
        """
        ...


@runtime_checkable
class ListsPrompts(Protocol):
    """A prompt set that knows all that it may draw."""

    @property
    def prompts(self) -> Sequence[Prompt]: ...


@runtime_checkable
class Renders(Protocol):
    """A prompt set that draws samples in their scene, such as a path among the obstacles of its
    prompt. Its images stand wherever samples are shown, in place of the modality's previews.
    """

    def render(self, samples: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """samples (B, *S), all finite -> images (B, 3, H, W) in [0, 1], of one size."""
        ...
