"""What models, modalities, samplers and the policy that they make can do."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rediffuse.maths.gaussian import Gaussian
from rediffuse.maths.schedules import NoiseSchedule
from rediffuse.types.data import CleanSamples, Conditioning, ModelCard, Prompt, Weights


@runtime_checkable
class HasPrecision(Protocol):
    """A model that says in what its networks compute: fp32, bf16 or fp16."""

    precision: str


class Modality(Protocol):
    """A kind of sample: how it is shown and kept.

    Attributes:
        name: that of its file in the room `modalities`, by which a reward says what it judges.
        suffix: of the files that `save` writes.
    """

    @property
    def name(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    def preview(self, samples: Tensor) -> Tensor:
        """samples (B, *S) -> images (B, 3, H, W) in [0, 1], for pages and statistics; NaN where a
        sample is not finite.
        """
        ...

    def quantized(self, samples: Tensor) -> Tensor:
        """samples (B, *S) -> the same as a file of them gives back."""
        ...

    def save(self, sample: Tensor, stem: Path) -> None:
        """sample (*S), into the file `stem` with this modality's suffix."""
        ...


class Denoiser(Protocol):
    """A pretrained network with its text encoder and its decoder, and the part of it that
    learns.
    """

    modality: Modality
    latent_shape: tuple[int, ...]
    device: torch.device
    schedule: NoiseSchedule
    needs_loss_scaling: bool
    """Whether gradients are computed in fp16, which has no room for small ones."""

    pinned: Mapping[str, Any]
    """Options of the model that loading made exact, such as the commit that a branch stood for."""

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning: ...
    def predict(self, x: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        """x (N, *L), time (N,) -> (N, *L) fp32, guidance included."""
        ...

    def decode(self, latents: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """latents (B, *L) -> samples (B, *S); NaN, not clamped, where the decoder's output is not
        finite. It carries gradients; who needs none holds `torch.no_grad`.
        """
        ...

    def encode_samples(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """samples (B, *S) -> mean and standard deviation (B, *L) of the distribution of their
        latents. It carries gradients, as `decode` does.
        """
        ...

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """What learns, by name."""
        ...

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        """Inside, predictions are made with those weights."""
        ...

    def export(self, folder: Path) -> None:
        """Write what was learned in the form other tools load."""
        ...


@runtime_checkable
class HasModelCard(Protocol):
    """A denoiser that says how what it exports is loaded."""

    def model_card(self) -> ModelCard: ...


@runtime_checkable
class Converts(Protocol):
    """A denoiser that can write what was learned as one file of another format."""

    def export_as(self, form: str, path: Path) -> None:
        """Raises ConfigError where there is no such form of it."""
        ...


@runtime_checkable
class ReadsTokens(Protocol):
    """A denoiser whose text encoder reads so many tokens of a prompt, and ignores the rest."""

    @property
    def max_tokens(self) -> int: ...
    def num_tokens(self, text: str) -> int:
        """Of the whole text, those that mark its begin and end included."""
        ...


@runtime_checkable
class Guided(Protocol):
    """A denoiser whose predictions are those of classifier-free guidance."""

    def predict_guided(
        self, x: Tensor, time: Tensor, conditioning: Conditioning, scale: float
    ) -> Tensor:
        """As `predict`, with guidance of another scale; 1 is the network for the prompt alone."""
        ...


class ModelFamily(Protocol):
    """The options of a model; loading is a second act, after the whole configuration was checked.

    A family whose samples are no images has an attribute `modality`, the name of their kind; one
    that takes no text has `takes_text = False`.
    """

    def load(self, device: str, seed: int) -> Denoiser:
        """seed: of the weights that training starts from, where they are new."""
        ...


class Sampler(Protocol):
    """A way from noise to image, each step of which is a draw from a Gaussian."""

    times: Tensor
    """(T,), what the network is told at each step."""
    noisy: Sequence[bool]
    """T of them: whether the step draws anything."""

    def step(self, output: Tensor, state: Tensor, step: Tensor) -> Gaussian:
        """output, state (N, *L); step (N,) -> the law of the next state."""
        ...


class SamplerFamily(Protocol):
    """The options of a sampler; `bind` gives it the times and noise levels of a model."""

    def bind(self, schedule: NoiseSchedule) -> Sampler: ...


class Policy(Protocol):
    """A distribution over the next state, given a state and what the model sees of the prompt."""

    def act(self, state: Tensor, step: Tensor, conditioning: Conditioning) -> Gaussian: ...
    def sensitivity(self) -> Tensor:
        """(T,), how far a unit of network output moves each step's mean, in its standard
        deviations.
        """
        ...

    def denoising_error(self, batch: CleanSamples, *, guided: bool = True) -> Tensor:
        """(N,), the squared error of the network's own prediction, averaged over the entries of L.

        guided: by classifier-free guidance, as samples are drawn.
        """
        ...

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        """Inside, the denoiser predicts with those weights."""
        ...
