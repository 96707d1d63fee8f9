"""What passes from hand to hand: prompts, trajectories, batches, losses, judgements."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from rediffuse.config.inputs import file_of
from rediffuse.errors import Status

Conditioning = Mapping[str, Tensor]
"""Everything the network sees of the prompt; each (B, …)."""


Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Prompt:
    """What a sample is made from.

    Attributes:
        text: may be empty, for models that take none.
        metadata: only the reward sees it.
        inputs: what the model sees besides the text, by name: a label, a state, a number of
            seconds. Its values are those of JSON; `{"file": "/absolute/path"}` is a file, such as
            an image to change (`images.input_image` reads it).
    """

    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """All that the model sees, as one line; of a file, its name alone."""
        return self._line(_shown)

    @property
    def key(self) -> str:
        """All that the model sees, as text; prompts with equal keys are the same prompt."""
        return self._line(_as_json)

    def _line(self, written: Callable[[Any], str]) -> str:
        pairs = sorted(self.inputs.items())
        inputs = ", ".join(f"{name}={written(value)}" for name, value in pairs)
        return f"{self.text} [{inputs}]".lstrip() if inputs else self.text


def _shown(value: Any) -> str:
    file = file_of(value)
    return _as_json(value) if file is None else Path(file).name


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Trajectory:
    """The way from noise to latent, on the host.

    steps: (K,) int64 in [0, T), the random ones: where nothing is drawn there is no action to learn
    from
    path: (B, T+1, *L) fp32, pure noise first, the clean latent last; each latent stands once
    log_probs: (B, K), under the policy that sampled

    Where nobody learns from the way, path is (B, 1, *L), the clean latent alone, and K is 0.
    spread: (B, *L), of latents that are a law's mean: its standard deviation, to draw from it anew
    in every pass
    faults: of each sample, where it stopped being finite (faults.py), empty where it never did;
    none at all: all are whole
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
        """The positions of the samples that are finite; no other is shown to a reward or learned
        from.
        """
        return [i for i, fault in enumerate(self.faults) if not fault]


@dataclass(frozen=True)
class Transitions:
    """What a policy-gradient algorithm learns from: N single steps.

    state, next_state: (N, *L)
    step: (N,) int64 in [0, T), on the host
    log_prob, advantage: (N,)
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

    latents, noise: (N, *L)
    time: (N,), drawn as in pretraining, on the host
    weight: (N,), what `Algorithm.advantages` gave
    """

    latents: Tensor
    noise: Tensor
    time: Tensor
    weight: Tensor
    conditioning: Conditioning


@dataclass(frozen=True)
class EncodedSamples(CleanSamples):
    """Clean samples whose latents are those of the decoded samples, encoded again: each pass draws
    them anew from the distribution that the encoder gives.
    """


Batch = Transitions | CleanSamples


Weights = Literal["start"]
"""Weights besides those that learn: `start` are those that training started from."""


@dataclass(frozen=True)
class Passes:
    """How the updates of an epoch go through its samples.

    Attributes:
        inner_epochs: How many times all samples are gone through.
        rows_per_sample: On how many of a trajectory's K random steps, or at how many times of a
            clean sample, each pass trains; None: on all K.
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
    """value: a scalar with its graph, the mean over the batch. log_ratio: (N,), without; None if no
    ratio can be.
    """

    value: Tensor
    log_ratio: Tensor | None = None
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """A reward with what it is made of.

    values: (B,)
    parts: (B,) each, by name, logged beside it
    notes: a text for each image, by name, for the journal
    statuses: of each image; none at all says that every finite value is ok. What timed out is asked
        again.
    """

    values: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    statuses: Sequence[Status] = ()


@dataclass(frozen=True)
class ModelCard:
    """What a model's export says of itself in its README.

    Attributes:
        usage: Markdown: how the files of the export are loaded.
        library: which library loads them, as the Hub names it; empty: none that it knows.
        tags: of the Hub, besides those of every run.
    """

    usage: str
    library: str = ""
    tags: Sequence[str] = ()
