"""The input of the verdict's rules, and the findings that they return."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

from rediffuse.runs.rows import MetricsRow, MonitorRow
from rediffuse.verdict.disagreement import Gap
from rediffuse.verdict.overoptimisation import Course, course

Level = Literal["good", "warning", "bad", "unknown", "note"]


@dataclass(frozen=True)
class Finding:
    """The result of one rule.

    Attributes:
        rule: The name of the rule.
        level: The severity; "note" is neither good nor bad.
        text: The finding in a sentence.
        numbers: The numbers it is based on, by name.
    """

    rule: str
    level: Level
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """The logs of a run, as the rules read them.

    Attributes:
        config: The content of config.yaml.
        metrics: One row for each epoch.
        looks: One row for each evaluation on the fixed prompts and seeds.
        gaps: For each watched reward, its differences from the trained one (`disagreement.gaps`).
        checkpoints: The numbers of epochs of the checkpoints that may be chosen as best; None: any.
    """

    config: Mapping[str, Any]
    metrics: Sequence[MetricsRow]
    looks: Sequence[MonitorRow] = ()
    gaps: Mapping[str, Sequence[Gap]] = field(default_factory=dict)
    checkpoints: Collection[int] | None = None

    @property
    def num_samples(self) -> int:
        """The number of samples in an epoch."""
        return int(self.config["prompts_per_epoch"]) * int(self.config["images_per_prompt"])

    @cached_property
    def course(self) -> Course:
        """The trained and the held-out rewards over the evaluations."""
        return course(self.metrics, self.looks, self.checkpoints)

    @property
    def clip_fraction(self) -> float:
        """The mean clip fraction over the last quarter of the epochs."""
        return fmean(
            row.get("clip_fraction", 0.0) for row in self.metrics[-max(1, len(self.metrics) // 4) :]
        )

    @property
    def kl(self) -> float | None:
        """The KL divergence from the pretrained model at the last evaluation, in nats per image."""
        return self.looks[-1]["statistics"].get("kl") if self.looks else None
