"""Data types: the samples of an epoch, and how they were generated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.deferred import torch
from rediffuse.types.data import Prompt

if TYPE_CHECKING:
    from torch import Tensor


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
