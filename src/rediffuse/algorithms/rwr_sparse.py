"""RWR-sparse: the loss of pretraining on the best of one's own samples, all with equal weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rediffuse.algorithms._rwr import WeightedRegression
from rediffuse.config.schema import Config, PositiveInt
from rediffuse.deferred import torch
from rediffuse.errors import ConfigError
from rediffuse.maths.weights import (
    above_percentile,
    above_percentile_by_group,
    above_percentile_so_far,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SparseRegression"]


@dataclass(frozen=True)
class SparseRegression(WeightedRegression):
    """RWR-sparse (Black et al. 2023, sec. 4.2). The defaults are those of the paper's code.

    Attributes:
        inner_epochs: How many passes are made over the epoch's selected samples.
        percentile: Samples with a reward below this percentile are left out; in [0, 100].
        among: The rewards that the percentile is taken over: those of one draw of a "prompt" (as in
            the paper's code), those of the whole "epoch", or those of this and all earlier draws in
            the epoch ("all_so_far").
        threshold: If set, samples with a lower reward are left out instead, as published for visual
            question answering.
    """

    inner_epochs: PositiveInt = 50
    percentile: Annotated[float, Field(ge=0, le=100)] = 90.0
    among: Literal["prompt", "epoch", "all_so_far"] = "prompt"
    threshold: float | None = None

    groups = "draw"

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Returns 1 for selected samples and NaN for the others, shape (B,)."""
        if self.threshold is not None:
            kept = rewards >= self.threshold
        elif self.among == "epoch":
            kept = above_percentile(rewards, self.percentile)
        else:
            by_draw = (
                above_percentile_by_group if self.among == "prompt" else above_percentile_so_far
            )
            kept = by_draw(rewards, groups, self.percentile)
        return torch.where(kept, torch.ones_like(rewards), torch.nan)

    def num_trained(self, config: Config) -> int:
        if self.threshold is not None:
            return config.num_samples
        groups, size = (
            (config.prompts_per_epoch, config.images_per_prompt)
            if self.among == "prompt"
            else (1, config.num_samples)
        )
        return groups * (size - math.ceil(self.percentile / 100 * (size - 1)))

    def check(self, config: Config) -> None:
        """Raises ConfigError if every sample would be selected, or fewer samples than there are
        updates.
        """
        if self.threshold is None and self.among == "prompt" and config.images_per_prompt == 1:
            raise ConfigError(
                "images_per_prompt: with 1, the best of each prompt's images are all of them, and"
                " rwr_sparse leaves none out. Set it to 2 or more, or compare all prompts:"
                " --algorithm.among epoch"
            )
        if config.updates_per_epoch > self.num_trained(config):
            raise ConfigError(
                f"updates_per_epoch: {config.updates_per_epoch} updates need as many samples, but"
                f" of {config.num_samples} only {self.num_trained(config)} reach percentile"
                f" {self.percentile:g}. Raise the samples, or make fewer updates."
            )
