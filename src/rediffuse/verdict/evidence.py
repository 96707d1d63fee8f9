"""What the rules of the verdict are given, and what they find."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

from rediffuse.verdict.disagreement import Gap
from rediffuse.verdict.overoptimisation import (
    Course,
    Rows,
    course,
)

Level = Literal["good", "warning", "bad", "unknown", "note"]


@dataclass(frozen=True)
class Finding:
    """level: note is neither good nor bad"""

    rule: str
    level: Level
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """config: config.yaml
    metrics: a row an epoch
    looks: a row a look at the fixed pictures
    gaps: of disagreement.gaps, by the watched reward
    checkpoints: in epochs done, those to choose the best from; None: any
    """

    config: Mapping[str, Any]
    metrics: Rows
    looks: Rows = ()
    gaps: Mapping[str, Sequence[Gap]] = field(default_factory=dict)
    checkpoints: Collection[int] | None = None

    @property
    def num_samples(self) -> int:
        """Of an epoch."""
        return int(self.config["prompts_per_epoch"]) * int(self.config["images_per_prompt"])

    @cached_property
    def course(self) -> Course:
        """How trained and held-out rewards moved over the evaluations."""
        return course(self.metrics, self.looks, self.checkpoints)

    @property
    def clip_fraction(self) -> float:
        """Of the last quarter of the epochs."""
        return fmean(
            row.get("clip_fraction", 0.0) for row in self.metrics[-max(1, len(self.metrics) // 4) :]
        )

    @property
    def kl(self) -> float | None:
        """In nats a picture, at the last look."""
        return self.looks[-1]["statistics"].get("kl") if self.looks else None
