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
    reference_mean: (N, *L), of the pretrained model's step, for algorithms that ask for it
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

    def frozen(self) -> AbstractContextManager[None]:
        """Inside, predictions are those of the pretrained weights."""
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

    def frozen(self) -> AbstractContextManager[None]: ...


LearnsFrom = Literal["transitions", "latents", "samples"]
"""Transitions; CleanSamples of the latents that were sampled; or of the decoded samples, encoded again."""


@runtime_checkable
class Algorithm(Protocol):
    """max_ratio_drift: how far from 1 the ratio may be before the first update without spoiling the loss."""

    metric_names: Sequence[str]
    """Of what its losses report."""

    groups: Literal["prompt", "draw"]
    """What `advantages` is told apart: prompts by their text, or each draw of one, with its images."""

    @property
    def learns_from(self) -> LearnsFrom: ...
    @property
    def inner_epochs(self) -> int: ...
    @property
    def steps_per_sample(self) -> int | None:
        """How many of a trajectory's K random steps, or how many times of a clean sample, each pass trains on; None: all K."""
        ...

    @property
    def restart_optimizer(self) -> bool:
        """Whether each epoch's updates begin with fresh moments."""
        ...

    @property
    def reshuffle(self) -> bool:
        """Whether each pass over an epoch's samples has minibatches of its own."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether its loss asks for the pretrained model's means."""
        ...

    @property
    def max_ratio_drift(self) -> float: ...
    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Finite rewards (B,) and their groups (B,), as `groups` asks -> (B,); NaN: not to be trained on."""
        ...

    def loss(self, policy: Policy, batch: Any) -> Loss:
        """batch: Transitions or CleanSamples, as `learns_from` says."""
        ...

    def num_trained(self, config: Config) -> int:
        """Of an epoch's samples, how many it trains on if all prompts differ."""
        ...

    def check(self, config: Config) -> None:
        """Raises ConfigError where the algorithm's mathematics forbids the plan."""
        ...

    def state(self) -> dict[str, Any]:
        """What it remembers from epoch to epoch, as JSON would hold it."""
        ...

    def load(self, state: dict[str, Any]) -> None: ...
