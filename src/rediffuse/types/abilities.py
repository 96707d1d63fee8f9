"""Protocols of what a denoiser may be able to do besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rediffuse.types.data import Conditioning, ModelCard, Prompt

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class HasPrecision(Protocol):
    """A model with a known precision.

    Attributes:
        precision: What its networks compute in: fp32, bf16 or fp16.
    """

    precision: str


@runtime_checkable
class HasModelCard(Protocol):
    """A denoiser that describes how its export is loaded."""

    def model_card(self) -> ModelCard:
        """Returns what the README of the export says."""
        ...


@runtime_checkable
class Converts(Protocol):
    """A denoiser that can write the trained weights as one file of another format."""

    def export_as(self, form: str, path: Path) -> None:
        """Writes the trained weights as one file of another format. Raises ConfigError if there is
        no such format for them.
        """
        ...


@runtime_checkable
class ReadsTokens(Protocol):
    """A denoiser whose text encoder ignores a prompt's tokens beyond a maximum."""

    @property
    def max_tokens(self) -> int:
        """How many tokens the text encoder reads, special tokens included."""
        ...

    def num_tokens(self, text: str) -> int:
        """Returns the number of tokens of the whole text, special tokens included."""
        ...


@runtime_checkable
class PreparesPrompts(Protocol):
    """A denoiser whose text encoder visits the device, once for all prompts that are announced."""

    def prepare(self, prompts: Sequence[Prompt]) -> None:
        """Encodes prompts that will be passed to `encode`, as many as its memory holds. Changes no
        result.
        """
        ...


@runtime_checkable
class Merges(Protocol):
    """A denoiser that predicts faster while its trained weights do not change."""

    def merged(self) -> AbstractContextManager[None]:
        """Returns a context in which the trained weights must not change. It changes no result."""
        ...


@runtime_checkable
class Guided(Protocol):
    """A denoiser with classifier-free guidance."""

    def predict_guided(
        self, x: Tensor, time: Tensor, conditioning: Conditioning, scale: float
    ) -> Tensor:
        """Returns the prediction with another guidance scale; 1 means the conditional prediction
        alone. The other arguments and the result are those of `predict`.
        """
        ...


class GradientRecord(Protocol):
    """What the trained layers saw in forward passes."""

    def gradients(self, values: Tensor, receive: Callable[[str, Tensor], None]) -> None:
        """Computes the gradients of each sample's value.

        Args:
            values: Shape (N,), computed by the recorded forward passes. They can be used once.
            receive: Called with the name of each trained parameter and the gradients
                (N, *parameter), fp32; parameters that no value depends on are left out.
        """
        ...


@runtime_checkable
class HasSampleGradients(Protocol):
    """A denoiser that computes the gradients of each sample of a batch in one backward pass.

    Attributes:
        has_sample_gradients: Whether it does for what is trained now.
    """

    has_sample_gradients: bool

    def recorded(self) -> AbstractContextManager[GradientRecord]:
        """Returns a context that records the predictions of this thread."""
        ...
