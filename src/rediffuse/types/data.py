"""Data types: prompts, batches and losses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rediffuse.config.inputs import file_of

if TYPE_CHECKING:
    from torch import Tensor

Conditioning = Mapping[str, "Tensor"]
"""Everything the network sees of the prompts, by name; each tensor has shape (B, …)."""


Metrics = Mapping[str, float]
"""Numbers for the logs, by name."""


@dataclass(frozen=True)
class Prompt:
    """The condition that a sample is generated from.

    Attributes:
        text: The text prompt; empty for models without text input.
        metadata: Data for the reward, such as questions with their answers; the model does not see
            it.
        inputs: What the model sees besides the text, by name, such as a class label, a state or a
            duration in seconds; JSON-compatible values. A file, such as an image to edit, is
            `{"file": "/absolute/path"}`, which `images.input_image` reads.
    """

    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Everything the model sees, as one text, in which a file is its name alone."""
        return self._line(_shown)

    @property
    def key(self) -> str:
        """Everything the model sees, as one text; prompts with equal keys are the same prompt."""
        return self._line(_as_json)

    @property
    def group(self) -> int:
        """A number of 63 bits, equal for prompts with equal keys, in every epoch and process."""
        digest = hashlib.blake2b(self.key.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

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
class Transitions:
    """A batch of N single denoising steps, for policy gradients.

    Attributes:
        state: Shape (N, *L): the latents before the step.
        next_state: Shape (N, *L): the latents after it.
        step: Shape (N,), int64 in [0, T), on the CPU.
        log_prob: Shape (N,): the log-probability of `next_state` under the policy that sampled.
        advantage: Shape (N,).
        conditioning: The encoded prompts.
        reference_mean: Shape (N, *L): the mean of the same step under the weights that
            `Passes.reference` names; None if it names none.
    """

    state: Tensor
    next_state: Tensor
    step: Tensor
    log_prob: Tensor
    advantage: Tensor
    conditioning: Conditioning
    reference_mean: Tensor | None = None


class TransitionsWithMeans(Transitions):
    """Transitions whose trajectories also hold the mean of each random step, which another policy's
    is compared with.
    """


@dataclass(frozen=True)
class CleanSamples:
    """A batch of N clean samples with times and noise, for regression on the pretraining objective.

    Attributes:
        latents: Shape (N, *L).
        noise: Shape (N, *L): the noise to add to the latents.
        time: Shape (N,), drawn as in pretraining, on the CPU.
        weight: Shape (N,): the result of `Algorithm.advantages`.
        conditioning: The encoded prompts.
    """

    latents: Tensor
    noise: Tensor
    time: Tensor
    weight: Tensor
    conditioning: Conditioning


@dataclass(frozen=True)
class EncodedSamples(CleanSamples):
    """Clean samples whose latents come from encoding the decoded samples; each pass draws them
    anew from the encoder's distribution.
    """


Batch = Transitions | CleanSamples
"""What an algorithm may train on."""


Weights = Literal["start"]
"""Names of fixed weights; `start` are those that training started from."""


@dataclass(frozen=True)
class Passes:
    """How the updates of an epoch go through its samples.

    Attributes:
        inner_epochs: The number of passes over all samples.
        rows_per_sample: How many rows each sample gives in a pass: of a trajectory this many of its
            K random steps, None: all of them; of a clean sample this many noising times, None: one.
        restart_optimizer: Whether the optimizer's moments are reset at the start of each epoch.
        reshuffle: Whether each pass has its own random minibatches.
        reference: The weights whose mean of each step is passed to the loss as `reference_mean`;
            None: not computed.
    """

    inner_epochs: int = 1
    rows_per_sample: int | None = None
    restart_optimizer: bool = False
    reshuffle: bool = True
    reference: Weights | None = None


@dataclass(frozen=True)
class Loss:
    """The loss of a batch.

    Attributes:
        value: A scalar with its autograd graph: the mean over the batch.
        log_ratio: Shape (N,), detached: log-probability under the current policy minus that under
            the policy that sampled; None for losses without a ratio.
        metrics: Further numbers for the logs, means over the batch.
    """

    value: Tensor
    log_ratio: Tensor | None = None
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class ModelCard:
    """The part of an export's README that depends on the model family.

    Attributes:
        usage: How the exported files are loaded, in Markdown.
        library: The library that loads them, by its name on the Hub; empty if the Hub has none.
        tags: Tags for the Hub, besides those of every run.
    """

    usage: str
    library: str = ""
    tags: Sequence[str] = ()
