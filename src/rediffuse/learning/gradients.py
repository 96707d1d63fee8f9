"""The gradient of a minibatch: from a pass through the network, or from the scores that sampling
summed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from rediffuse.errors import RediffuseError
from rediffuse.learning.batches import Batches, Rows
from rediffuse.learning.totals import Totals
from rediffuse.processes.memory import RowLimit
from rediffuse.types import FirstUpdate, HasScores, Loss

TOLERANCE = 1e-4
"""The largest relative difference of a sample's factors between its steps."""


@dataclass(frozen=True)
class Part:
    """The contribution of some rows of a minibatch.

    Attributes:
        gradient: The gradient of the mean loss over the rows, times the loss scale, for each
            parameter.
        loss: The loss, detached.
        num_rows: The number of rows.
    """

    gradient: Sequence[Tensor]
    loss: Loss
    num_rows: int


@dataclass(frozen=True)
class Gradients:
    """Computes the gradients of an epoch's minibatches.

    Attributes:
        batches: The training rows of the epoch.
        limit: How many rows a pass through the network takes.
        totals: The losses and metrics of the epoch.
        first: The first update's summed scores, if sampling computed them.
    """

    batches: Batches
    limit: RowLimit
    totals: Totals
    first: FirstUpdate | None

    def of(self, rows: Rows, num_rows: int, scale: Tensor, *, is_first: bool) -> list[Tensor]:
        """Returns the gradient of the mean loss over a minibatch, for each parameter.

        Args:
            rows: The rows of this process.
            num_rows: The number of rows of all processes.
            scale: The scale of the loss; the gradient has it too.
            is_first: Whether this is the first update of the epoch.
        """
        parameters = self.batches.policy.denoiser.parameters()
        total = [torch.zeros_like(each) for each in parameters.values()]
        summed, others = self._split(rows) if is_first else (None, rows)
        from_sums = [self._from_sums(summed)] if summed else []
        for part in chain(from_sums, self._passes(others, scale)):
            for sum_, gradient in zip(total, part.gradient, strict=True):
                sum_.add_(gradient, alpha=part.num_rows / num_rows)
            self.totals.add(part.loss, part.num_rows, first=is_first)
        return total

    def _split(self, rows: Rows) -> tuple[Rows | None, Rows]:
        """Splits rows into those whose scores are summed and the others."""
        if self.first is None:
            return None, rows
        samples = self.batches.rollout.indices[rows.sample]
        known = torch.tensor([sample in self.first.places for sample in samples.tolist()])
        return rows.only(known) if known.any() else None, rows.only(~known)

    def _passes(self, rows: Rows, scale: Tensor) -> Iterator[Part]:
        """Yields the contributions of rows that need a pass through the network."""
        parts = rows.split(self.limit.rows)
        references = self.batches.references(parts)
        batches, policy = self.batches, self.batches.policy
        parameters = list(policy.denoiser.parameters().values())

        def part_of(rows: Rows, reference: Tensor | None) -> Part:
            with torch.enable_grad():
                loss = batches.algorithm.loss(policy, batches.batch(rows, reference))
                found = torch.autograd.grad(scale * loss.value, parameters, materialize_grads=True)
            detached = Loss(loss.value.detach(), loss.log_ratio, loss.metrics)
            return Part(found, detached, len(rows.sample))

        def fitting(work: tuple[Rows, Tensor | None]) -> list[Part]:
            rows, reference = work
            every = torch.arange(len(rows.sample))
            return list(
                self.limit.over(
                    lambda part: part_of(
                        rows.only(part), None if reference is None else reference[part]
                    ),
                    every,
                )
            )

        for found in batches.world.map(fitting, list(zip(parts, references, strict=True))):
            yield from found

    def _from_sums(self, rows: Rows) -> Part:
        """Returns the contribution of rows whose scores are summed.

        Raises:
            RediffuseError: The algorithm's factor is not the same for all steps of a sample.
        """
        first, algorithm, batches = self.first, self.batches.algorithm, self.batches
        assert first is not None and isinstance(algorithm, HasScores)
        way = batches.rollout.trajectory
        weights = first.weights[way.steps[rows.k]]
        log_prob = way.log_probs[rows.sample, rows.k].clone().requires_grad_()
        advantage = batches.advantages[rows.sample].float()
        with torch.enable_grad():
            loss = algorithm.policy_loss(log_prob, log_prob.detach(), advantage, weights)
            (slopes,) = torch.autograd.grad(loss.value, log_prob)
        factors = (slopes / weights).view(-1, batches.choices[0])
        if ((factors - factors[:, :1]).abs() > TOLERANCE * factors[:, :1].abs()).any():
            raise RediffuseError(
                f"{type(algorithm).__name__}: is_of_scores is true, but the gradient of policy_loss"
                " has different factors for the steps of a sample. Make it false."
            )
        samples = batches.rollout.indices[rows.sample].view_as(factors)[:, 0].tolist()
        found = first.gradient(dict(zip(samples, factors[:, 0].tolist(), strict=True)))
        parameters = batches.policy.denoiser.parameters()
        gradient = [found[name].to(each.device) for name, each in parameters.items()]
        if not first.is_only:
            self._measure_drift(rows)
        detached = Loss(loss.value.detach(), loss.log_ratio, loss.metrics)
        return Part(gradient, detached, len(rows.k))

    @torch.no_grad()
    def _measure_drift(self, rows: Rows) -> None:
        """Computes the ratio of some rows, since later updates depend on it."""
        part = rows.split(self.limit.rows)[0]
        batches = self.batches
        batch = batches.batch(part, batches.references([part])[0])
        self.totals.see_drift(batches.algorithm.loss(batches.policy, batch).log_ratio)
