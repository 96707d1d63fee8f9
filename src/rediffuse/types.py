"""The nouns of the house.

Shapes: B trajectories in this process, T denoising steps, K of them random, N rows of any choice of
(trajectory, step), *L one latent. Step 0 leaves pure noise, step T-1 arrives at the clean latent.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.errors import Status
from rediffuse.maths.gaussian import Gaussian
from rediffuse.maths.schedules import NoiseSchedule

Conditioning = Mapping[str, Tensor]
"""Everything the network sees of the prompt; each (B, …)."""
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Prompt:
    """What a sample is made from.

    Attributes:
        text: may be empty, for models that take none.
        metadata: only the reward sees it.
        inputs: what the model sees besides the text, by name: a label, a state, a number of seconds. Its values are those of
            JSON.
    """

    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """All that the model sees, as one line; prompts with equal lines are the same prompt."""
        inputs = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(self.inputs.items()))
        return f"{self.text} [{inputs}]".lstrip() if inputs else self.text


@dataclass(frozen=True)
class Trajectory:
    """The way from noise to latent, on the host.

    steps: (K,) int64 in [0, T), the random ones: where nothing is drawn there is no action to learn from
    path: (B, T+1, *L) fp32, pure noise first, the clean latent last; each latent stands once
    log_probs: (B, K), under the policy that sampled

    Where nobody learns from the way, path is (B, 1, *L), the clean latent alone, and K is 0.
    spread: (B, *L), of latents that are a law's mean: its standard deviation, to draw from it anew in every pass
    faults: of each sample, where it stopped being finite (faults.py), empty where it never did; none at all: all are whole
    """

    steps: Tensor
    path: Tensor
    log_probs: Tensor
    spread: Tensor | None = None
    faults: Sequence[str] = ()

    @property
    def latents(self) -> Tensor:
        """(B, *L), after the last of all steps."""
        return self.path[:, -1]


@dataclass(frozen=True)
class Rollout:
    """One process's share of an epoch's samples.

    groups: (B,) int64, equal where the prompt is, in every epoch and process
    indices: (B,) int64, each sample's number in the epoch, whichever process drew it
    samples: (B, *S), as the model's modality has them; images are (B, 3, H, W) in [0, 1]
    """

    prompts: Sequence[Prompt]
    groups: Tensor
    indices: Tensor
    samples: Tensor
    trajectory: Trajectory

    @property
    def faults(self) -> Sequence[str]:
        """One for each sample, empty where it is whole."""
        return self.trajectory.faults or [""] * len(self.prompts)

    @property
    def whole(self) -> list[int]:
        """The positions of the samples that are finite; no other is shown to a reward or learned from."""
        return [i for i, fault in enumerate(self.faults) if not fault]


@dataclass(frozen=True)
class Transitions:
    """What a policy-gradient algorithm learns from: N single steps.

    state, next_state: (N, *L)   step: (N,) int64 in [0, T), on the host   log_prob, advantage: (N,)
    reference_mean: (N, *L), of the same step under the weights that `Passes.reference` names
    """

    state: Tensor
    next_state: Tensor
    step: Tensor
    log_prob: Tensor
    advantage: Tensor
    conditioning: Conditioning
    reference_mean: Tensor | None = None


@dataclass(frozen=True)
class CleanSamples:
    """What an algorithm learns from that adds noise to finished samples again.

    latents, noise: (N, *L)   time: (N,), drawn as in pretraining, on the host
    weight: (N,), what `Algorithm.advantages` gave
    """

    latents: Tensor
    noise: Tensor
    time: Tensor
    weight: Tensor
    conditioning: Conditioning


@dataclass(frozen=True)
class EncodedSamples(CleanSamples):
    """Clean samples whose latents are those of the decoded samples, encoded again: each pass draws them anew from the
    distribution that the encoder gives.
    """


Batch = Transitions | CleanSamples
Weights = Literal["start"]
"""Weights besides those that learn: `start` are those that training started from."""


@dataclass(frozen=True)
class Passes:
    """How the updates of an epoch go through its samples.

    Attributes:
        inner_epochs: How many times all samples are gone through.
        rows_per_sample: On how many of a trajectory's K random steps, or at how many times of a clean sample, each pass
            trains; None: on all K.
        restart_optimizer: Whether each epoch begins with fresh moments.
        reshuffle: Whether each pass has minibatches of its own.
        reference: The weights whose mean of each step the loss is given besides.
    """

    inner_epochs: int = 1
    rows_per_sample: int | None = None
    restart_optimizer: bool = False
    reshuffle: bool = True
    reference: Weights | None = None


@dataclass(frozen=True)
class Loss:
    """value: a scalar with its graph, the mean over the batch. log_ratio: (N,), without; None if no ratio can be."""

    value: Tensor
    log_ratio: Tensor | None = None
    metrics: Metrics = field(default_factory=dict)


class PromptSet(Protocol):
    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]: ...


@dataclass(frozen=True)
class Judgement:
    """A reward with what it is made of.

    values: (B,)   parts: (B,) each, by name, logged beside it   notes: a text for each image, by name, for the journal
    statuses: of each image; none at all says that every finite value is ok. What timed out is asked again.
    """

    values: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    statuses: Sequence[Status] = ()


class Reward(Protocol):
    """Scores samples. One that judges a single kind of sample has an attribute `judges`, the name of that modality."""

    def __call__(self, samples: Tensor, prompts: Sequence[Prompt], /) -> Tensor | Judgement:
        """samples (B, *S), images are (B, 3, H, W) in [0, 1] -> (B,), higher is better; NaN where it cannot say."""
        ...


@runtime_checkable
class Combines(Protocol):
    """A reward that is made of its parts when all of an epoch are known."""

    def combined(self, parts: Mapping[str, Tensor]) -> Tensor:
        """parts: (N,) each, NaN where one is not known -> (N,)."""
        ...


@runtime_checkable
class NeedsLoading(Protocol):
    """A reward with a model of its own."""

    def prepare(self, device: str) -> None:
        """Loads it; called once, before anything is sampled. Raises ConfigError."""
        ...


@runtime_checkable
class HasPrecision(Protocol):
    """A model that says in what its networks compute: fp32, bf16 or fp16."""

    precision: str


@runtime_checkable
class HasFeatures(Protocol):
    """A reward whose network can tell how alike pictures are."""

    def features(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> (B, D), on the host; far apart where the pictures differ."""
        ...


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
        """samples (B, *S) -> images (B, 3, H, W) in [0, 1], for pages and statistics; NaN where a sample is not finite."""
        ...

    def quantized(self, samples: Tensor) -> Tensor:
        """samples (B, *S) -> the same as a file of them gives back."""
        ...

    def save(self, sample: Tensor, stem: Path) -> None:
        """sample (*S), into the file `stem` with this modality's suffix."""
        ...


class Denoiser(Protocol):
    """A pretrained network with its text encoder and its decoder, and the part of it that learns."""

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
        """latents (B, *L) -> samples (B, *S); NaN, not clamped, where the decoder's output is not finite."""
        ...

    def encode_samples(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """samples (B, *S) -> mean and standard deviation (B, *L) of the distribution of their latents."""
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

    def export_as(self, form: str, path: Path) -> None:
        """Write what was learned as one file of another format. Raises ConfigError where there is no such form of it."""
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

    def predict_unguided(self, x: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        """As `predict`, of the network for the prompt alone."""
        ...


@runtime_checkable
class ListsPrompts(Protocol):
    """A prompt set that knows all that it may draw."""

    @property
    def prompts(self) -> Sequence[Prompt]: ...


class ModelFamily(Protocol):
    """The options of a model; loading is a second act, after the whole configuration was checked.

    A family whose samples are no images has an attribute `modality`, the name of their kind.
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
    def act(self, state: Tensor, step: Tensor, conditioning: Conditioning) -> Gaussian: ...
    def sensitivity(self) -> Tensor:
        """(T,), how far a unit of network output moves each step's mean, in its standard deviations."""
        ...

    def denoising_error(self, batch: CleanSamples, *, guided: bool = True) -> Tensor:
        """(N,), the squared error of the network's own prediction, averaged over the entries of L.

        guided: by classifier-free guidance, as samples are drawn.
        """
        ...

    def using(self, weights: Weights) -> AbstractContextManager[None]:
        """Inside, the denoiser predicts with those weights."""
        ...


@runtime_checkable
class Algorithm(Protocol):
    """How an epoch's rewards become a loss.

    Attributes:
        groups: What `advantages` is told apart: prompts by all that the model sees of them, or each draw of a prompt.
    """

    groups: Literal["prompt", "draw"]

    @property
    def trains_on(self) -> type[Batch]:
        """What `loss` is given."""
        ...

    @property
    def passes(self) -> Passes: ...
    @property
    def metric_names(self) -> Sequence[str]:
        """The names of the metrics that its losses report."""
        ...

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Finite rewards (B,) and their groups (B,), as `groups` asks -> (B,); NaN: not to be trained on."""
        ...

    def loss(self, policy: Policy, batch: Any) -> Loss:
        """Returns the loss of a batch, which is of the type `trains_on`."""
        ...

    def check(self, config: Config) -> None:
        """Raises ConfigError where the algorithm's mathematics forbids the plan."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """An algorithm that keeps something from epoch to epoch."""

    def state(self) -> dict[str, Any]:
        """Returns it as JSON would hold it."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        ...


@runtime_checkable
class HasRatio(Protocol):
    """An algorithm whose loss tells the likelihood of a sample from the one that it was drawn with."""

    @property
    def max_ratio_drift(self) -> float:
        """How far from 1 their ratio may be before the first update without spoiling the loss."""
        ...


@runtime_checkable
class Selects(Protocol):
    """An algorithm that trains on some of an epoch's samples."""

    def num_trained(self, config: Config) -> int:
        """Returns how many they are at most, if all prompts differ and no two rewards are equal."""
        ...
