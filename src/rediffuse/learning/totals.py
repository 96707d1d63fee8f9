"""The losses, metrics and gradients of an epoch's updates, summed up for its row."""

import math
from collections.abc import Sequence
from typing import cast

import torch

from rediffuse.processes.world import World
from rediffuse.runs.rows import UpdateColumns
from rediffuse.types import Loss


class Totals:
    """Sums of losses and metrics over rows, from which the epoch's means are computed."""

    def __init__(self, metric_names: Sequence[str], *, has_ratio: bool) -> None:
        self.has_ratio = has_ratio
        of_ratio = ("approx_kl",) if has_ratio else ()
        self.sums = dict.fromkeys(("loss", *of_ratio, *metric_names), 0.0)
        self.num_rows = 0
        self.lost = 0
        self.ratio_drift = 0.0
        self.grad_norms: list[float] = []

    def add(self, loss: Loss, num_rows: int, *, first: bool) -> None:
        """Adds the loss of a micro-batch; one that is not finite only increments `lost`."""
        metrics = {"loss": loss.value.item(), **loss.metrics}
        approx_kl = None if loss.log_ratio is None else 0.5 * loss.log_ratio.square().mean().item()
        if not math.isfinite(metrics["loss"]) or not math.isfinite(approx_kl or 0.0):
            self.lost += 1
            return
        if approx_kl is not None and loss.log_ratio is not None:
            metrics["approx_kl"] = approx_kl
            if first:
                self.ratio_drift = max(
                    self.ratio_drift, (loss.log_ratio.exp() - 1).abs().max().item()
                )
        for name, value in metrics.items():
            self.sums[name] += value * num_rows
        self.num_rows += num_rows

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
