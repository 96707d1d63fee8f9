"""Protocols of rewards and prompt sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rediffuse.errors import Status
from rediffuse.types.data import Prompt

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Judgement:
    """The output of a reward with more than its values.

    Attributes:
        values: Shape (B,); higher is better.
        parts: Further numbers, by name, which are logged; each has shape (B,).
        notes: One text for each sample, by name, for rewards.jsonl.
        statuses: One status for each sample; empty: every finite value is ok. Samples with
            "timeout" are scored again later.
    """

    values: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    statuses: Sequence[Status] = ()


class PromptSet(Protocol):
    """A set or distribution of prompts."""

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        """Draws `n` prompts; equal states of the generator give equal prompts."""
        ...


class Reward(Protocol):
    """Scores samples: a function, an instance of a reward's class, or what that class loads.

    A function or a reward's class for a single modality has an attribute `judges`, the modality's
    name. One whose values are differentiable with respect to the samples has `differentiable`,
    which is true.
    """

    def __call__(self, samples: Tensor, prompts: Sequence[Prompt], /) -> Tensor | Judgement:
        """Scores samples.

        Args:
            samples: Shape (B, *S); images have shape (B, 3, H, W), in [0, 1].
            prompts: The prompt of each sample.

        Returns:
            Shape (B,); higher is better, and NaN means that there is no reward.
        """
        ...


@runtime_checkable
class RewardFamily(Protocol):
    """The options of a reward with a model of its own. It is loaded only after the whole
    configuration was checked.
    """

    def load(self, device: str) -> Reward:
        """Loads the model; called once, before anything is sampled.

        Returns:
            The reward. It may have an attribute `pinned`, a mapping of options that loading
            resolved, such as the commit of a branch.

        Raises:
            ConfigError: If the model cannot be loaded.
        """
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A reward whose network gives features for the similarity of images."""

    def features(self, images: Tensor) -> Tensor:
        """Returns features whose Euclidean distance measures how different images are.

        Args:
            images: Shape (B, 3, H, W), in [0, 1].

        Returns:
            Shape (B, D), on the CPU.
        """
        ...


@runtime_checkable
class ListsPrompts(Protocol):
    """A finite prompt set."""

    @property
    def prompts(self) -> Sequence[Prompt]:
        """All prompts that `draw` may return."""
        ...


@runtime_checkable
class Renders(Protocol):
    """A prompt set that draws samples in their scene, such as a path among the obstacles of its
    prompt. Its images replace the modality's previews wherever samples are shown.
    """

    def render(self, samples: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Draws finite samples (B, *S) as images (B, 3, H, W) in [0, 1] of one size."""
        ...
