"""RWR-sparse: the loss of pretraining on the best of one's own samples, all of them alike."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rediffuse.algorithms._rwr import WeightedRegression
from rediffuse.config import Config, PositiveInt
from rediffuse.errors import ConfigError
from rediffuse.maths.weights import above_percentile, above_percentile_by_group

__all__ = ["SparseRegression"]


@dataclass(frozen=True)
class SparseRegression(WeightedRegression):
    """Black et al. 2023, sec. 4.2; the defaults are those of the paper's code.

    percentile: samples of a lower reward are left out.
    among: the rewards that it is a percentile of: those of the images of one drawn prompt (each time that it is drawn, as
    the paper's code), all of this epoch, or all so far.
    """

    inner_epochs: PositiveInt = 50
    percentile: Annotated[float, Field(ge=0, le=100)] = 90.0
    among: Literal["prompt", "epoch", "all_so_far"] = "prompt"
    seen: list[float] = field(init=False, repr=False, compare=False, default_factory=list)

    groups = "draw"

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """1, or NaN for those left out."""
        self.seen.extend(rewards.tolist() if self.among == "all_so_far" else [])
        if self.among == "prompt":
            kept = above_percentile_by_group(rewards, groups, self.percentile)
        else:
            kept = above_percentile(rewards, self.percentile, rewards.new_tensor(self.seen) if self.seen else None)
        return torch.where(kept, torch.ones_like(rewards), torch.nan)

    def num_trained(self, config: Config) -> int:
        groups, size = (config.prompts_per_epoch, config.images_per_prompt) if self.among == "prompt" else (1, config.num_samples)
        return groups * (size - math.ceil(self.percentile / 100 * (size - 1)))

    def check(self, config: Config) -> None:
        if self.among == "prompt" and config.images_per_prompt == 1:
            raise ConfigError(
                "images_per_prompt: with 1, the best of each prompt's images are all of them, and rwr_sparse leaves none out. Set"
                " it to 2 or more, or compare all prompts: --algorithm.among epoch"
            )
        if config.updates_per_epoch > self.num_trained(config):
            raise ConfigError(
                f"updates_per_epoch: {config.updates_per_epoch} updates need as many samples, but of {config.num_samples} only"
                f" {self.num_trained(config)} reach percentile {self.percentile:g}. Raise the samples, or make fewer updates."
            )

    def state(self) -> dict[str, Any]:
        return {"seen": list(self.seen)}

    def load(self, state: dict[str, Any]) -> None:
        self.seen[:] = state["seen"]
