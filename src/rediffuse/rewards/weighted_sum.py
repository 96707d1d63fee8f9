"""Several rewards as one: each brought to the same scale over the epoch, then weighed and added."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rediffuse.config.schema import Positive
from rediffuse.errors import ConfigError, Status
from rediffuse.scoring.judging import distinct_names, judged
from rediffuse.types import Combines, Judgement, NeedsLoading, Prompt

__all__ = ["WeightedSum"]


@dataclass(frozen=True)
class Term:
    """weight: may be negative, for a reward to keep low."""

    name: str
    reward: Any
    weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0


@dataclass(frozen=True)
class WeightedSum:
    """rewards: [{name: aesthetic, weight: 2}, {name: jpeg_compressibility, quality: 80}, …]; a
    weight is 1 if it is not said.

    normalize: each reward minus its mean over the epoch, in its standard deviations, so that
    weights mean the same whatever the units; the sum then says how a sample compares with its
    epoch, and its mean is 0 in every one: look at the parts to see what rose.
    clip_at: where each normalised reward ends, in standard deviations.
    """

    rewards: tuple[Term, ...] = ()
    normalize: bool = True
    clip_at: Positive | None = 5.0

    def __post_init__(self) -> None:
        if any(isinstance(term.reward, Combines) for term in self.rewards):
            raise ConfigError("reward.rewards: a sum within a sum; name its terms here.")
        if not any(term.weight for term in self.rewards):
            raise ConfigError(
                "reward.rewards: name at least one, as in [{name: aesthetic, weight: 2}, {name:"
                " redness}]."
            )

    @property
    def terms(self) -> dict[str, Term]:
        """By names of which none is there twice; of anyone's own, the name in its file."""
        return dict(
            zip(distinct_names(term.name for term in self.rewards), self.rewards, strict=True)
        )

    def prepare(self, device: str) -> None:
        for term in self.rewards:
            if isinstance(term.reward, NeedsLoading):
                term.reward.prepare(device)

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """The sum of the rewards as they are; of a whole epoch, `combined` makes it anew."""
        parts: dict[str, Tensor] = {}
        notes: dict[str, Sequence[str]] = {}
        statuses: list[Status] = ["ok"] * len(prompts)
        for name, term in self.terms.items():
            judgement = judged(term.reward, images, prompts)
            well = torch.tensor([status == "ok" for status in judgement.statuses])
            parts |= {f"{name}_{part}": each for part, each in judgement.parts.items()} | {
                name: judgement.values.where(well, torch.nan)
            }
            notes |= {f"{name}_{note}": texts for note, texts in judgement.notes.items()}
            statuses = [_worse(*pair) for pair in zip(statuses, judgement.statuses, strict=True)]
        return Judgement(self._summed(parts), parts, notes, statuses)

    def combined(self, parts: Mapping[str, Tensor]) -> Tensor:
        """parts: (N,) each, of the epoch -> (N,), NaN where a part is."""
        known = {name: values.where(values.isfinite(), torch.nan) for name, values in parts.items()}
        return self._summed({name: self._scaled(values) for name, values in known.items()})

    def _scaled(self, values: Tensor) -> Tensor:
        if not self.normalize:
            return values
        known = values[values.isfinite()]
        scaled = (values - known.mean()) / (known.std(correction=0) + 1e-8)
        return scaled if self.clip_at is None else scaled.clamp(-self.clip_at, self.clip_at)

    def _summed(self, parts: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([term.weight * parts[name] for name, term in self.terms.items()]).sum(0)


def _worse(status: Status, other: Status) -> Status:
    """What timed out is asked again, with all terms."""
    return "timeout" if "timeout" in (status, other) else other if status == "ok" else status
