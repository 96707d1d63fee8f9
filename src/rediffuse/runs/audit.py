"""Consistency of a run's logs with its newest checkpoint."""

from collections import Counter

from rediffuse.errors import RunError
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import read_metrics, read_monitor, read_rewards
from rediffuse.terminal.commands import command


def refuse_gaps(run: RunFolder, epochs: int) -> None:
    """Checks that the logs have every line of the first `epochs` epochs exactly once.

    Args:
        run: The run.
        epochs: The number of epochs that the checkpoint has been trained for.

    Raises:
        RunError: Lines are missing or duplicated.
    """
    told = read_metrics(run)
    metrics = Counter(row["epoch"] for row in told)
    _refuse(
        run,
        "metrics.jsonl",
        [
            f"{metrics[epoch]} lines of epoch {epoch}"
            for epoch in range(epochs)
            if metrics[epoch] != 1
        ],
    )
    sizes = {
        row["epoch"]: row["reward_queries"] // (row["epoch"] + 1)
        for row in told
        if "reward_queries" in row
    }
    samples: dict[int, list[int]] = {epoch: [] for epoch in range(epochs)}
    for row in read_rewards(run):
        samples.setdefault(row["epoch"], []).append(row["index"])
    gaps = [epoch for epoch in range(epochs) if _gap(samples[epoch], sizes.get(epoch))]
    _refuse(
        run, "rewards.jsonl", [f"missing or repeated samples of epoch {epoch}" for epoch in gaps]
    )
    if run.monitor.exists():
        looks = Counter(row["epoch"] for row in read_monitor(run))
        made = sorted(
            int(path.name.removeprefix("epoch-")) for path in run.samples.glob("epoch-[0-9]*")
        )
        wrong = [epoch for epoch in made if epoch < epochs and looks[epoch] != 1]
        _refuse(
            run,
            "monitor.jsonl",
            [f"{looks[epoch]} lines of the evaluation after {epoch} epochs" for epoch in wrong],
        )


def _gap(indices: list[int], size: int | None) -> bool:
    """Whether an index of an epoch is missing or duplicated; `size` is the number of samples, if
    known.
    """
    return not indices or sorted(indices) != list(range(size or len(indices)))


def _refuse(run: RunFolder, name: str, wrong: list[str]) -> None:
    if wrong:
        raise RunError(
            f"{run.path / name} does not match the newest checkpoint: it has"
            f" {wrong[0]}{f', and {len(wrong) - 1} similar faults' if wrong[1:] else ''}. Restore"
            " a copy of the file; or resume with the file as it is:"
            f" {command('resume', run.path, '--drop-damaged-lines')}"
        )
