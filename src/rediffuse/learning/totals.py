"""The losses, metrics and gradients of an epoch's updates, summed up for its row."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from rediffuse.processes.world import World
from rediffuse.runs.rows import UpdateColumns
from rediffuse.types import Loss


class Totals:
    """Sums of losses and metrics over rows, from which the epoch's means are computed.

    Values stay on their device until `settle`, so that micro-batches do not wait for each other.

    Attributes:
        lost: The number of micro-batches whose loss was not finite; exact after `settle`.
    """

    def __init__(self, metric_names: Sequence[str], *, has_ratio: bool) -> None:
        self.has_ratio = has_ratio
        of_ratio = ("approx_kl",) if has_ratio else ()
        self.names = ("loss", *of_ratio, *metric_names)
        self.sums = dict.fromkeys(self.names, 0.0)
        self.num_rows = 0
        self.lost = 0
        self.ratio_drift = 0.0
        self.grad_norms: list[float] = []
        self._seen: list[tuple[Tensor, int]] = []

    def add(self, loss: Loss, num_rows: int, *, first: bool) -> None:
        """Adds the loss of a micro-batch; one that is not finite only increments `lost`."""
        metrics = {"loss": loss.value, **loss.metrics}
        drift = loss.value.new_zeros(())
        if self.has_ratio and loss.log_ratio is not None:
            metrics["approx_kl"] = 0.5 * loss.log_ratio.square().mean()
            drift = (loss.log_ratio.exp() - 1).abs().max() if first else drift
        device = loss.value.device
        values = [torch.as_tensor(metrics[name], device=device) for name in self.names]
        self._seen.append((torch.stack([*values, drift]).double(), num_rows))

    def see_drift(self, log_ratio: Tensor | None) -> None:
        """Notes log-ratios (N,) from before the first update, which count for the drift alone."""
        if log_ratio is not None:
            self.ratio_drift = max(self.ratio_drift, (log_ratio.exp() - 1).abs().max().item())

    def settle(self) -> None:
        """Reads the values of the micro-batches that were added."""
        for seen, num_rows in self._seen:
            *values, drift = seen.tolist()
            if not all(map(math.isfinite, values[: 1 + self.has_ratio])):
                self.lost += 1
                continue
            for name, value in zip(self.names, values, strict=True):
                self.sums[name] += value * num_rows
            self.num_rows += num_rows
            self.ratio_drift = max(self.ratio_drift, drift)
        self._seen.clear()

    def means(self, world: World) -> UpdateColumns:
        """Returns the means over the rows of all processes; all of them must call it together."""
        local = torch.tensor([self.num_rows, *self.sums.values()], dtype=torch.float64)
        num_rows, *sums = world.summed([local])[0].tolist()
        drifts = torch.zeros(world.size, dtype=torch.float64)
        drifts[world.rank] = self.ratio_drift
        finite = [norm for norm in self.grad_norms if math.isfinite(norm)]
        pairs = zip(self.sums, sums, strict=True)
        means = {name: value / max(1, num_rows) for name, value in pairs}
        of_updates: UpdateColumns = {
            "grad_norm": sum(finite) / max(1, len(finite)),
            "skipped_updates": len(self.grad_norms) - len(finite),
        }
        if self.has_ratio:
            of_updates["ratio_drift"] = world.summed([drifts])[0].max().item()
        return cast(UpdateColumns, {**means, **of_updates})
