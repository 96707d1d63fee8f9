"""Protocols of models, modalities, samplers and the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rediffuse.costs.architecture import Architecture
from rediffuse.maths.gaussian import Gaussian
from rediffuse.maths.schedules import NoiseSchedule
from rediffuse.types.data import CleanSamples, Conditioning, Prompt, Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Modality(Protocol):
    """A kind of sample: how it is previewed, quantised and saved."""

    @property
    def name(self) -> str:
        """The name of its file in `rediffuse/modalities`; the attribute `judges` of a reward refers
        to it.
        """
        ...

    @property
    def suffix(self) -> str:
        """The suffix of the files that `save` writes, such as ".png"."""
        ...

    def preview(self, samples: Tensor) -> Tensor:
        """Renders samples as images for reports and image statistics.

        Args:
            samples: Shape (B, *S).

        Returns:
            Shape (B, 3, H, W), in [0, 1]; NaN for samples that are not finite.
        """
        ...

    def quantized(self, samples: Tensor) -> Tensor:
        """Returns samples (B, *S) with the precision of a saved file."""
        ...

    def save(self, sample: Tensor, stem: Path) -> None:
        """Saves one sample (*S) to the path `stem` plus `suffix`."""
        ...


class Denoiser(Protocol):
    """A pretrained network with its text encoder and its decoder, some of whose parameters are
    trained.

    Attributes:
        modality: The kind of its samples.
        latent_shape: The shape *L of one latent.
        device: Where the network is.
        schedule: The noise schedule of pretraining.
        needs_loss_scaling: Whether gradients are computed in fp16, in which small ones underflow.
        pinned: Options of the model that loading resolved, such as the commit of a branch.
    """

    modality: Modality
    latent_shape: tuple[int, ...]
    device: torch.device
    schedule: NoiseSchedule
    needs_loss_scaling: bool
    pinned: Mapping[str, Any]

    def encode(self, prompts: Sequence[Prompt]) -> Conditioning:
        """Encodes prompts for `predict`."""
        ...

    def predict(self, x: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        """Returns the network's prediction, with classifier-free guidance if the model uses it.

        Args:
            x: Shape (N, *L).
            time: Shape (N,), in the units of `schedule`.
            conditioning: The encoded prompts.

        Returns:
            Shape (N, *L), fp32.
        """
        ...

    def decode(self, latents: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Decodes latents (B, *L) to samples (B, *S), with gradients. Output of the decoder that is
        not finite becomes NaN and is not clamped.
        """
        ...

    def encode_samples(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the mean and the standard deviation, each (B, *L), of the latent distribution of
        samples (B, *S), with gradients.
        """
        ...

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """Returns the trained parameters, by name."""
        ...

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        """Returns a context in which predictions use those weights."""
        ...

    def export(self, folder: Path) -> None:
        """Writes the trained weights to `folder`, in the usual format of the model."""
        ...


class ModelFamily(Protocol):
    """The options of a model. It is loaded only after the whole configuration was checked.

    A family whose samples are not images has an attribute `modality`, the name of their modality; a
    family without text input has `takes_text = False`.
    """

    def load(self, device: str, seed: int) -> Denoiser:
        """Loads the model.

        Args:
            device: Where the networks are placed.
            seed: The seed of newly initialised weights, such as those of an adapter.
        """
        ...


@runtime_checkable
class HasCosts(Protocol):
    """A family that knows what its model costs before it is loaded, so that rows and memory can be
    planned.
    """

    def costs(self) -> Architecture | None:
        """Returns the costs of the model with these options; None if they are unknown. Downloads
        nothing.
        """
        ...


class Sampler(Protocol):
    """A denoising process in which each next state is drawn from a Gaussian distribution.

    Attributes:
        times: Shape (T,): the network's time input at each step.
        noisy: For each of the T steps whether it is random.
    """

    times: Tensor
    noisy: Sequence[bool]

    def step(self, output: Tensor, state: Tensor, step: Tensor) -> Gaussian:
        """Returns the distribution of the next state.

        Args:
            output: Shape (N, *L): the network's prediction.
            state: Shape (N, *L).
            step: Shape (N,), in [0, T).
        """
        ...


class SamplerFamily(Protocol):
    """The options of a sampler."""

    def bind(self, schedule: NoiseSchedule) -> Sampler:
        """Returns the sampler for a model with this noise schedule."""
        ...


class Policy(Protocol):
    """A distribution over the next state, given a state, the step and the encoded prompt."""

    def act(self, state: Tensor, step: Tensor, conditioning: Conditioning) -> Gaussian:
        """Returns the distribution of the next state.

        Args:
            state: Shape (N, *L).
            step: Shape (N,), in [0, T).
            conditioning: The encoded prompts.
        """
        ...

    def sensitivity(self) -> Tensor:
        """Returns |d mean / d output| / std of each step: shape (T,), infinite for deterministic
        steps.
        """
        ...

    def denoising_error(self, batch: CleanSamples, *, guided: bool = True) -> Tensor:
        """Returns the squared error of the pretraining objective, averaged over the elements of a
        latent.

        Args:
            batch: N clean samples with times and noise.
            guided: Whether to use the prediction with classifier-free guidance, as in sampling.

        Returns:
            Shape (N,).
        """
        ...

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        """Returns a context in which the denoiser predicts with those weights."""
        ...
