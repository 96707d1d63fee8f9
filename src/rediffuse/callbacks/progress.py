"""The terminal output of a run: a progress bar and one line for each epoch."""

import math
from collections.abc import Sequence
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rediffuse.callbacks.protocol import Callback, Epoch, RunState
from rediffuse.config.rewards import is_trained, term_names
from rediffuse.faults import place_of, told
from rediffuse.runs.rows import MetricsRow, column
from rediffuse.scoring.scores import Scores
from rediffuse.terminal.output import console
from rediffuse.types import Rollout
from rediffuse.verdict.overoptimisation import Fall

WHAT_NOW = {
    "warn": ". Training continues; --evaluation.on-overoptimisation stop or keep_best would end"
    " it or export the best checkpoint.",
    "stop": ". The run ends, and the best checkpoint left is exported. To continue nevertheless,"
    " set evaluation.on_overoptimisation: warn in its config.yaml, then resume.",
    "keep_best": ". The best checkpoint left will be exported at the end.",
}
"""The end of the over-optimisation message, for each value of `evaluation.on_overoptimisation`."""


SMALLEST_KL = 1e-9
"""Smaller values of `approx_kl` are not printed; they are rounding errors of an epoch's first
update.
"""
SMALLEST_REWARD, LARGEST_REWARD = 1e-2, 1e8
"""Rewards between these magnitudes are printed with four decimals, others in scientific
notation.
"""


class Display(Callback):
    """A progress bar, shown inside the context, with messages above it.

    Args:
        epochs: The number of epochs of the run.
        shown: Whether this process prints; only one process should.
    """

    def __init__(self, epochs: int, *, shown: bool) -> None:
        self.console = console(quiet=not shown)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=float(
                "inf"
            ),  # an epoch may be longer than rich's default of 30 s
        )
        self._task = self._progress.add_task("starting", total=epochs)
        self._num_images = 0
        self._warned = False
        self._broken: set[str] = set()

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def start_at(self, epoch: int) -> None:
        """Sets the bar to the number of completed epochs, when a run is resumed."""
        self._progress.update(self._task, completed=epoch)

    def epoch_begins(self, run: RunState) -> None:
        self._num_images = 0

    def sampled(self, run: RunState, batch: Rollout) -> None:
        self._num_images += len(batch.samples)
        self._progress.update(self._task, description=f"sampling {self._num_images} images")

    def scored(self, run: RunState, rollout: Rollout, scores: Scores) -> None:
        self._progress.update(self._task, description="learning")

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        self.broken(epoch.scores.faults)
        entries = run.config.rewards
        names = zip(term_names(entries), map(is_trained, entries), strict=True)
        self.epoch_done(epoch.metrics, [name for name, trained in names if trained])

    def say(self, message: str) -> None:
        """Prints a message above the bar."""
        self.console.print(message)

    def broken(self, found: Sequence[str]) -> None:
        """Reports samples of an epoch that are not finite, with a remedy, once for each place where
        it began.
        """
        new = [fault for fault in found if place_of(fault) not in self._broken]
        self._broken |= {place_of(fault) for fault in new}
        if new:
            self.say(f"{len(found)} samples are not finite and were left out. {told(new)}")

    def overoptimised(self, fall: Fall, best: int | None, action: str) -> None:
        """Reports that a held-out reward has fallen.

        Args:
            fall: The evaluation and size of the fall.
            best: The number of epochs of the best checkpoint; None if no earlier one is left.
            action: The value of `evaluation.on_overoptimisation`.
        """
        kept = (
            f"the best checkpoint is that of epoch {best}"
            if best
            else "no earlier checkpoint is left"
        )
        self.say(
            f"over-optimised after {fall.epoch} epochs: on the same images the held-out"
            f" {fall.reward} has fallen by {-fall.change.mean:.3g} ± {fall.change.error:.2g}"
            f" since epoch {fall.since}, and the reward has not; {kept}" + WHAT_NOW[action]
        )

    def epoch_done(self, metrics: MetricsRow, terms: Sequence[str] = ()) -> None:
        """Prints the line of an epoch and, once, a warning if the ratio is too far from 1.

        Args:
            metrics: The row of the epoch.
            terms: The rewards that are summed, whose means are printed if that of the sum is
                always 0.
        """
        line = f"epoch {metrics['epoch']:3.0f}   {_reward(metrics, terms)}"
        line += f"   {metrics['images_per_second']:.1f} images/s"
        if metrics.get("approx_kl", 0) > SMALLEST_KL:
            line += f"   kl {metrics['approx_kl']:.1e}"
        broken = metrics.get("masked_broken_sample", 0)
        if broken:
            line += f"   {broken:.0f} samples not finite"
        if metrics["masked_rewards"] > broken:
            line += f"   {metrics['masked_rewards'] - broken:.0f} rewards masked"
        if metrics["skipped_updates"]:
            line += (
                f"   {metrics['skipped_updates']:.0f} updates skipped: the gradient was not finite"
            )
        if not metrics["trained_samples"]:
            line += "   no samples to train on"
        self.console.print(line)
        drift, most = metrics.get("ratio_drift", 0), metrics.get("max_ratio_drift", math.inf)
        if drift > most and not self._warned:
            self._warned = True
            self.console.print(
                "Before the first update the importance ratio should be 1; it deviates by"
                f" {drift:.1e}, and more than {most:.1e} distorts the loss. Use --model.precision"
                " fp32, a wider --algorithm.clip_range, or --sampler.num_quiet_steps 1 to leave"
                " out the most sensitive step."
            )
        self._progress.update(self._task, advance=1)


def _reward(metrics: MetricsRow, terms: Sequence[str]) -> str:
    means = [(name, column(metrics, f"reward_{name}")) for name in terms]
    known = [f"{name} {mean:.4f}" for name, mean in means if mean is not None]
    if metrics.get("relative_reward") and known:
        return "   ".join(known)
    mean, std = metrics["reward_mean"], metrics["reward_std"]
    usual = SMALLEST_REWARD <= max(abs(mean), std) < LARGEST_REWARD or mean == std == 0
    return f"reward {mean:8.4f} ± {std:.4f}" if usual else f"reward {mean:.3e} ± {std:.3e}"
