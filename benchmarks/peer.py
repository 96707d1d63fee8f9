"""Compares the speed and memory of one epoch of training with TRL's DDPOTrainer, on a CPU.

python -m benchmarks.peer                        all configurations of `tiny`: about 15 minutes
python -m benchmarks.peer --quick                one pair each: 3 minutes
python -m benchmarks.peer --only 1,2 4,2         some configurations: the peer's batch, updates
python -m benchmarks.peer --shape mini           a larger network, of fewer images and steps
python -m benchmarks.peer --update-json          writes benchmarks/results/peer.json

The first call makes .venv-peer, with the last TRL that has the trainer. Both sides run in processes
of their own, each on one core with one torch thread, so that our side has one lane. They share a
pipeline of random weights and the adapter's initial weights. Before anything is timed, both train
for one epoch with the same noise, order and reward: unless log-probabilities, losses and updates
agree, no number is printed and the exit code is 1. Then their runs alternate, and every run of ours
stands between two of the peer, whose ratio is the noise floor. A ratio is the peer's CPU seconds
over ours; a run's seconds are the median of its epochs without the first. On neither side do
they include start-up, evaluations, checkpoints or reports.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import _meter
from benchmarks._peer_gate import Gate
from benchmarks._peer_job import PHASES
from benchmarks._peer_sides import PEER, ROOT, SHAPES, Sides, measured

RESULTS = ROOT / "benchmarks" / "results" / "peer.json"
MEGABYTE = 1e6


CONFIGURATIONS = ((1, 1), (1, 2), (4, 1), (4, 2))
"""The peer's batch size, and the updates of an epoch."""


class UnequalError(Exception):
    """The sides do not compute the same, so that their speed cannot be compared."""


def seconds(run: Mapping[str, Any], phase: str) -> float:
    """Returns the median CPU seconds of a run's epochs without the first."""
    return median(epoch[phase] for epoch in run["epochs"][1:])


def ratios(above: Sequence[Mapping[str, Any]], below: Sequence[Mapping[str, Any]]) -> Any:
    """Returns the median, the least and the greatest ratio of paired runs, by phase."""
    found = {}
    for phase in PHASES:
        each = [seconds(a, phase) / seconds(b, phase) for a, b in zip(above, below, strict=True)]
        found[phase] = {"median": median(each), "min": min(each), "max": max(each)}
    return found


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the medians of one side's runs: CPU seconds by phase, growth of memory, and the loss,
    KL and clip fraction of the last epoch.
    """
    last = [run["epochs"][-1] for run in runs]
    return {
        **{f"seconds_{phase}": median(seconds(run, phase) for run in runs) for phase in PHASES},
        "growth_megabytes": median(run["growth_bytes"] for run in runs) / MEGABYTE,
        **{
            name: median(epoch[name] for epoch in last)
            for name in ("loss", "approx_kl", "clip_fraction")
        },
    }


def gates(sides: Sides, only: Sequence[str] = ()) -> dict[tuple[int, int], Gate]:
    """Returns the gate of each configuration.

    Args:
        sides: Both sides.
        only: The configurations to compare, such as "1,2"; empty: all.

    Raises:
        UnequalError: The sides do not compute the same in one of them.
    """
    found = {}
    chosen = [each for each in CONFIGURATIONS if not only or f"{each[0]},{each[1]}" in only]
    for batch, updates in chosen:
        gate = sides.gate(batch, updates)
        if gate.failures:
            raise UnequalError(f"batch {batch}, {updates} updates: {'; '.join(gate.failures)}")
        found[batch, updates] = gate
    return found


def comparison(sides: Sides, batch: int, updates: int, pairs: int, epochs: int) -> dict[str, Any]:
    """Measures one configuration, whose gate was passed."""
    job = sides.job(batch, updates, epochs)
    peer, ours = [measured(sides.peer(job))], []
    for _ in range(pairs):
        ours.append(measured(sides.ours(job)))
        peer.append(measured(sides.peer(job)))
    return {
        "batch": batch,
        "updates": updates,
        "chosen": ours[0]["chosen"],
        "ratio": ratios(peer[:-1], ours),
        "noise_floor": ratios(peer[:-1], peer[1:]),
        "peer": summary(peer),
        "ours": summary(ours),
    }


HEADER = (
    "batch updates   whole             sampling          training          peer/peer        "
    "   growth MB  loss        KL       clipped"
)


def lines_of(found: Mapping[str, Any]) -> str:
    """Returns a configuration's two lines of the table, below HEADER."""
    shown = [_range(found["ratio"][phase]) for phase in ("whole", "sampling", "training")]
    floor = _range(found["noise_floor"]["whole"])
    columns = "  ".join(f"{text:16s}" for text in [*shown, floor])
    start = f"{found['batch']:5d} {found['updates']:7d}   {columns}"
    ours = f"{'':{len(start)}s}  {_of_side('ours', found['ours'])}"
    return f"{start}  {_of_side('peer', found['peer'])}\n{ours}"


def _range(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})"


def _of_side(name: str, side: Mapping[str, float]) -> str:
    return (
        f"{name} {side['growth_megabytes']:7.0f}  {side['loss']:+.1e}  {side['approx_kl']:.1e}"
        f"  {side['clip_fraction']:.3f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=list(SHAPES), default="tiny")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of a run; the first is left out")
    parser.add_argument("--rows", type=int, help="ours; by default, what rediffuse chooses")
    parser.add_argument("--quick", action="store_true", help="one pair, two epochs")
    parser.add_argument("--update-json", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument(
        "--only", nargs="+", metavar="BATCH,UPDATES", help="some of the configurations, as 1,2"
    )
    args = parser.parse_args()
    pairs, epochs = (1, 2) if args.quick else (args.pairs, args.epochs)
    shape = asdict(SHAPES[args.shape]) | {"pairs": pairs, "epochs": epochs, "rows": args.rows}
    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(args.shape, Path(folder), args.rows)
        try:
            equal = gates(sides, args.only or ())
        except UnequalError as error:
            print(f"The sides do not agree, so there is no number: {error}", file=sys.stderr)
            return 1
        print(f"{args.shape}, peer / ours in CPU seconds: median (least–greatest) of {pairs} pairs")
        print(HEADER, flush=True)
        for (batch, updates), gate in equal.items():
            one = comparison(sides, batch, updates, pairs, epochs)
            print(lines_of(one), flush=True)
            if args.update_json:
                _update(args.shape, shape, {**one, "gate": asdict(gate)})
    return 0


def _machine() -> dict[str, Any]:
    return {**_meter.machine(), "peer": PEER, "torch_threads": 1, "cores_used": 1}


def _update(name: str, shape: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Replaces the results of one configuration in the committed file."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    before = known.get(name, {}).get("configurations", [])
    same = ("batch", "updates")
    others = [each for each in before if any(each[key] != found[key] for key in same)]
    every = sorted([*others, found], key=lambda each: [each[key] for key in same])
    known[name] = {"machine": _machine(), "shape": shape, "configurations": every}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
