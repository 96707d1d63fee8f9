"""RWR-sparse: the loss of pretraining on the best of one's own samples, all of them alike."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from rediffuse.algorithms._rwr import WeightedRegression
from rediffuse.maths.weights import above_percentile, above_percentile_by_group

__all__ = ["SparseRegression"]


@dataclass(frozen=True)
class SparseRegression(WeightedRegression):
    """Black et al. 2023, sec. 4.2; the defaults are those of the paper's code.

    percentile: samples of a lower reward are left out.
    among: the rewards that it is a percentile of: each prompt's of this epoch (a prompt sampled once is kept),
    all of this epoch, or all so far.
    """

    inner_epochs: PositiveInt = 50
    percentile: Annotated[float, Field(ge=0, lt=100)] = 90.0
    among: Literal["prompt", "epoch", "all_so_far"] = "prompt"
    seen: list[float] = field(init=False, repr=False, compare=False, default_factory=list)

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """1, or NaN for those left out."""
        self.seen.extend(rewards.tolist() if self.among == "all_so_far" else [])
        if self.among == "prompt":
            kept = above_percentile_by_group(rewards, groups, self.percentile)
        else:
            kept = above_percentile(rewards, self.percentile, torch.tensor(self.seen or rewards.tolist()).to(rewards))
        return torch.where(kept, torch.ones_like(rewards), torch.nan)

    def state(self) -> dict[str, Any]:
        return {"seen": list(self.seen)}

    def load(self, state: dict[str, Any]) -> None:
        self.seen[:] = state["seen"]
