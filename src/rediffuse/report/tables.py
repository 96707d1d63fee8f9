"""The numbers in a run's report: key figures, and a table of prompts."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rediffuse.report.markup import duration, number, short, signed
from rediffuse.runs.rows import MetricsRow, RewardsRow, column
from rediffuse.verdict.changes import finite

MOST_PROMPTS = 100
"""The most rows of the table of prompts."""
PHASES = ("seconds_sampling", "seconds_reward", "seconds_training")
"""The metrics that add up to the duration of an epoch."""


@dataclass(frozen=True)
class Figure:
    """A number at the top of the page, with its description."""

    value: str
    words: str


@dataclass(frozen=True)
class PromptRow:
    """The rewards of one prompt.

    Attributes:
        prompt: The text of the prompt.
        before: The mean reward in the first epochs; NaN without samples.
        after: The mean reward in the last epochs; NaN without samples.
        n: The number of samples with a finite reward.
        said: The notes on the last sample.
    """

    prompt: str
    before: float
    after: float
    n: int
    said: str

    @property
    def change(self) -> float:
        """The mean reward of the last epochs minus that of the first."""
        return self.after - self.before


@dataclass(frozen=True)
class PromptTable:
    """The rewards of all prompts.

    Attributes:
        rows: One row for each prompt.
        epochs: The number of first and of last epochs over which means are taken.
        left_out: The number of prompts without a row.
    """

    rows: Sequence[PromptRow]
    epochs: int
    left_out: int

    @property
    def places(self) -> int:
        """The number of decimal places to print."""
        largest = max(
            (abs(value) for row in self.rows for value in (row.before, row.after)), default=0
        )
        return min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest > 0 else 2


def figures(
    metrics: Sequence[MetricsRow], planned: object, main: str = "reward_mean"
) -> list[Figure]:
    """Returns the numbers at the top of the page.

    Args:
        metrics: The rows of metrics.jsonl.
        planned: The planned number of epochs.
        main: The column whose change is shown.
    """
    first, last = metrics[0], metrics[-1]
    start, end = (finite(column(row, main)) for row in (first, last))
    spread = finite(first.get("reward_std")) if main == "reward_mean" else 0.0
    of = "reward" if main == "reward_mean" else main.removeprefix("reward_")
    found = [Figure(f"{number(start)} → {number(end)}", f"mean {of}, first and last epoch")]
    if spread > 0 and len(metrics) > 1:
        found.append(
            Figure(
                signed((end - start) / spread),
                "change, in standard deviations of the first epoch's samples",
            )
        )
    total = f" of {planned}" if planned != len(metrics) else ""
    found.append(
        Figure(
            f"{len(metrics)}{total}",
            "epoch of training" if len(metrics) == 1 and not total else "epochs of training",
        )
    )
    found.append(Figure(number(last.get("reward_queries")), "reward queries"))
    found.append(Figure(duration(seconds(metrics)), "of sampling, scoring and training"))
    lost = masked(metrics)
    if lost:
        kinds = ", ".join(
            f"{count} {short(status, 60).replace('_', ' ')}"
            for status, count in list(lost.items())[:8]
        )
        found.append(Figure(number(sum(lost.values())), f"rewards missing and left out: {kinds}"))
    return found


def seconds(metrics: Sequence[MetricsRow]) -> float:
    """Returns the duration of all epochs in seconds."""
    return math.fsum(
        value
        for row in metrics
        for phase in PHASES
        if not math.isnan(value := finite(column(row, phase)))
    )


def masked(metrics: Sequence[MetricsRow]) -> dict[str, int]:
    """Returns the number of missing rewards by status, most frequent first."""
    lost = Counter[str]()
    for row in metrics:
        lost.update(
            {
                key.removeprefix("masked_"): int(finite(column(row, key)))
                for key in row
                if _counts_a_status(key, row)
            }
        )
    return dict(lost.most_common())


def per_prompt(rewards: Sequence[RewardsRow]) -> PromptTable:
    """Compares the first and the last quarter of the epochs, prompt by prompt.

    Rows are sorted by descending gain; of too many, the middle ones are left out.
    """
    epochs = sorted({int(row["epoch"]) for row in rewards})
    span = max(1, len(epochs) // 4)
    early, late = set(epochs[:span]), set(epochs[-span:])
    of_prompt: dict[str, list[RewardsRow]] = {}
    for row in rewards:
        prompt: str | None = row.get("prompt")
        of_prompt.setdefault(str(prompt), []).append(row)
    rows = [_prompt_row(prompt, each, early, late) for prompt, each in of_prompt.items()]
    whole = sorted((row for row in rows if not math.isnan(row.change)), key=lambda row: -row.change)
    shown = (
        whole
        if len(whole) <= MOST_PROMPTS
        else whole[: MOST_PROMPTS // 2] + whole[-MOST_PROMPTS // 2 :]
    )
    return PromptTable(shown, span, len(rows) - len(shown))


def _prompt_row(
    prompt: str, rows: Sequence[RewardsRow], early: set[int], late: set[int]
) -> PromptRow:
    known = [
        (int(row["epoch"]), value)
        for row in rows
        if not math.isnan(value := finite(row.get("reward")))
    ]
    before, after = ([value for epoch, value in known if epoch in span] for span in (early, late))
    notes: Mapping[str, str] = rows[-1].get("notes") or {}
    said = (
        "; ".join(f"{key}: {value}" for key, value in notes.items())
        if isinstance(notes, Mapping)
        else str(notes)
    )
    return PromptRow(
        prompt, fmean(before or [math.nan]), fmean(after or [math.nan]), len(known), said
    )


def _counts_a_status(key: str, row: MetricsRow) -> bool:
    return key.startswith("masked_") and key != "masked_rewards" and finite(column(row, key)) > 0
