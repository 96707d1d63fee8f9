"""Data types: prompts, trajectories, batches, losses and the output of rewards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rediffuse.config.inputs import file_of
from rediffuse.deferred import torch

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
class Trajectory:
    """Denoising trajectories of B samples, on the CPU.

    For algorithms that train on clean samples, `path` holds the final latents only, shape
    (B, 1, *L), and K is 0.

    Attributes:
        steps: Shape (K,), int64 in [0, T): the random steps. Deterministic steps hold no action to
            learn from.
        path: Shape (B, T+1, *L), fp32, from pure noise to the clean latent; fewer states if not all
            are needed.
        log_probs: Shape (B, K): the log-probabilities of the random steps under the policy that
            sampled.
        spread: Shape (B, *L): the posterior's standard deviation if `path` holds its mean; the
            latents are then resampled in every pass.
        faults: For each sample where it stopped being finite (`faults.traced`), or an empty text;
            empty as a whole if all samples are finite.
        kept: Which states `path` holds, from 0 (pure noise) to T (clean), in order; empty: all.
        means: Shape (B, K, *L): the means of the random steps' Gaussians; None where they are not
            kept.
    """

    steps: Tensor
    path: Tensor
    log_probs: Tensor
    spread: Tensor | None = None
    faults: Sequence[str] = ()
    kept: Sequence[int] = ()
    means: Tensor | None = None

    def has_states(self, step: int) -> bool:
        """Whether the states before and after a step are kept."""
        return not self.kept or {step, step + 1} <= set(self.kept)

    def states(self, samples: Tensor, number: Tensor) -> Tensor:
        """Returns states (N, *L).

        Args:
            samples: Shape (N,), positions in the trajectory.
            number: Shape (N,), in [0, T]: before step 0, …, before step T-1, clean. They are kept.
        """
        if not self.kept:
            return self.path[samples, number]
        column = torch.full((max(self.kept) + 1,), self.path.shape[1])
        column[list(self.kept)] = torch.arange(len(self.kept))
        return self.path[samples, column[number]]

    @property
    def latents(self) -> Tensor:
        """The latents after the last step, shape (B, *L)."""
        return self.path[:, -1]


@dataclass(frozen=True)
class Rollout:
    """Samples of an epoch that this process drew, or a micro-batch of them.

    Attributes:
        prompts: The prompt of each sample.
        groups: Shape (B,), int64: a hash of the prompt, equal in all epochs and processes.
        indices: Shape (B,), int64: the number of each sample in the epoch, among the samples of all
            processes.
        samples: Shape (B, *S), in the range of the model's modality; images have shape
            (B, 3, H, W), in [0, 1]. After scoring it has 0 rows.
        trajectory: How the samples were generated.
    """

    prompts: Sequence[Prompt]
    groups: Tensor
    indices: Tensor
    samples: Tensor
    trajectory: Trajectory

    @property
    def faults(self) -> Sequence[str]:
        """For each sample where it stopped being finite; empty if it is finite."""
        return self.trajectory.faults or [""] * len(self.prompts)

    @property
    def whole(self) -> list[int]:
        """The positions of the finite samples; only these are scored and trained on."""
        return [i for i, fault in enumerate(self.faults) if not fault]

    def only(self, rows: Sequence[int]) -> Rollout:
        """Returns the rollout of some of its samples; itself, if they are all."""
        if len(rows) == len(self.prompts):
            return self
        way, chosen = self.trajectory, list(rows)
        trajectory = Trajectory(
            way.steps,
            way.path[chosen],
            way.log_probs[chosen],
            None if way.spread is None else way.spread[chosen],
            [way.faults[i] for i in rows] if way.faults else (),
            way.kept,
            None if way.means is None else way.means[chosen],
        )
        return Rollout(
            [self.prompts[i] for i in rows],
            self.groups[chosen],
            self.indices[chosen],
            self.samples[chosen],
            trajectory,
        )

    @classmethod
    def joined(cls, parts: Iterable[Rollout], num_samples: int) -> Rollout:
        """Concatenates the rollouts of several micro-batches, of `num_samples` samples in all.

        Each part is copied into preallocated tensors and can be freed at once. Keeping small
        tensors among large freed ones would fragment the memory.
        """
        prompts: list[Prompt] = []
        faults: list[str] = []
        whole: dict[str, Tensor] = {}
        steps = torch.empty(0, dtype=torch.int64)
        kept: Sequence[int] = ()
        for part in parts:
            begin, steps, kept = len(prompts), part.trajectory.steps, part.trajectory.kept
            prompts.extend(part.prompts)
            faults.extend(part.faults)
            for name, rows in part._tensors().items():
                if name not in whole:
                    whole[name] = rows.new_empty(num_samples if len(rows) else 0, *rows.shape[1:])
                whole[name][begin : begin + len(rows)] = rows
        found = faults if any(faults) else ()
        trajectory = Trajectory(
            steps,
            whole["path"],
            whole["log_probs"],
            whole.get("spread"),
            found,
            kept,
            whole.get("means"),
        )
        return cls(prompts, whole["groups"], whole["indices"], whole["samples"], trajectory)

    def _tensors(self) -> dict[str, Tensor]:
        """Those with a row for each sample; samples that were already scored have 0 rows."""
        way = self.trajectory
        found = {"groups": self.groups, "indices": self.indices, "samples": self.samples}
        found |= {"path": way.path, "log_probs": way.log_probs}
        optional = {"spread": way.spread, "means": way.means}
        return found | {name: each for name, each in optional.items() if each is not None}


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
