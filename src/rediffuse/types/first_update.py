"""The gradients of an epoch's first update, summed while its samples are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rediffuse.deferred import torch
from rediffuse.types.abilities import GradientRecord

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FirstUpdate:
    """The summed scores of this process's samples of the first update.

    Attributes:
        key: The random key of the samples' noise, which only they have.
        places: For the number of each sample in the epoch its row below.
        steps: Shape (B, T): whether a step of a sample is trained.
        weights: Shape (T,): the weight of each step in the sum.
        sums: The sums (B, *parameter) of weight · scale · ∇log p, by parameter, fp32, on the host.
        scale: The scale of the loss, against underflow in fp16.
        is_only: Whether no other update follows in the epoch, so that its transitions are not
            needed.
    """

    key: tuple[int | str, ...]
    places: Mapping[int, int]
    steps: Tensor
    weights: Tensor
    sums: Mapping[str, Tensor]
    scale: float
    is_only: bool

    def rows(self, samples: Sequence[int], step: int) -> list[int]:
        """Returns the positions of those samples for which a step's scores are needed.

        Args:
            samples: The number of each sample in the epoch.
            step: The step, in [0, T).
        """
        return [
            position
            for position, sample in enumerate(samples)
            if sample in self.places and self.steps[self.places[sample], step]
        ]

    def add(
        self, samples: Sequence[int], step: int, record: GradientRecord, log_prob: Tensor
    ) -> None:
        """Adds the scores of a step.

        Args:
            samples: The numbers of N samples.
            step: The step, in [0, T).
            record: The forward pass that computed the log-probabilities.
            log_prob: Shape (N,), with its graph.
        """
        places = torch.tensor([self.places[sample] for sample in samples])
        weight = self.weights[step].item() * self.scale
        found: list[tuple[str, Tensor]] = []

        def add(name: str, gradients: Tensor) -> None:
            self.sums[name].index_add_(0, places, gradients)

        if log_prob.device.type == "cpu":
            record.gradients(weight * log_prob, add)
            return
        # where memory may run out, nothing is added before all of it is computed
        record.gradients(weight * log_prob, lambda *each: found.append(each))
        for name, gradients in found:
            add(name, gradients.cpu())

    def gradient(self, factors: Mapping[int, float]) -> dict[str, Tensor]:
        """Returns the sum over samples of their factor times their scores, by parameter.

        Args:
            factors: For the number of each sample its factor.
        """
        places = torch.tensor([self.places[sample] for sample in factors])
        values = torch.tensor(list(factors.values()), dtype=torch.float32)
        return {
            name: torch.tensordot(values, each[places], dims=1) for name, each in self.sums.items()
        }
