"""Measures speed and memory on one GPU: Stable Diffusion 1.5's architecture with random weights.

python -m benchmarks.gpu --out gpu.jsonl                at most 8 minutes on a data-centre card
python -m benchmarks.gpu --out gpu.jsonl --parts rows-1,rows-8
python -m benchmarks.gpu --tiny --out tiny.jsonl        all parts at toy size, on any machine
python -m benchmarks.gpu --family NAME --model '{"source": "a/folder"}' --out other.jsonl

It needs torch, diffusers and rediffuse, and downloads nothing. Each part appends a line of JSON to
the file; a part that is in the file already is skipped, and one that fails records its error, so
that the same command goes on after an interruption. A table of the whole file ends each call.

Times are of the training loop itself, over a few denoising steps; figures for a whole trajectory
are scaled from them, with the decoding that was timed apart. TRL is measured where it can be
imported in this environment.
"""

import argparse
import gc
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import _gpu_parts as parts
from benchmarks._gpu_setting import Setting
from benchmarks._gpu_table import table
from benchmarks._pipelines import build

ARCHITECTURE = {"stable_diffusion": "sd15"}
"""The pipeline of random weights that stands for a family."""
BUDGET_SECONDS = 480.0


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        measure: Returns the figures.
        arguments: Of `measure`, after the setting.
        needs_cuda: Whether it means nothing on a CPU.
    """

    measure: Callable[..., Mapping[str, Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    needs_cuda: bool = False


def all_parts(setting: Setting) -> dict[str, Part]:
    """Returns the parts by name, the most important first and those that compile last."""
    rows, best = setting.rows, setting.rows[-2]
    learn = {f"rows-{n}": Part(parts.loop, {"rows": n}) for n in rows}
    peer = {f"trl-{n}": Part(parts.peer, {"rows": n}) for n in rows}
    return {
        "device": Part(parts.device),
        "matmul": Part(parts.matmul),
        "flops": Part(parts.flops),
        **learn,
        "automatic": Part(parts.loop, {"rows": None}),
        f"one-pass-{best}": Part(parts.loop, {"rows": best, "one_pass": True}),
        "checkpointing": Part(parts.loop, {"rows": 1, "gradient_checkpointing": True}),
        **peer,
        "eager": Part(parts.network, {"rows": best}),
        "contiguous": Part(parts.network, {"rows": best, "channels_last": False}),
        "eager-1": Part(parts.network, {"rows": 1}),
        "cuda-graph-1": Part(parts.graph, {"rows": 1}, needs_cuda=True),
        f"cuda-graph-{best}": Part(parts.graph, {"rows": best}, needs_cuda=True),
        "fp32": Part(parts.network, {"rows": best, "precision": "fp32"}),
        "tf32": Part(parts.network, {"rows": best, "precision": "fp32", "tf32": True}, True),
        "compiled": Part(parts.network, {"rows": best, "compiled": True}, needs_cuda=True),
    }


def finished(path: Path, setting: str) -> dict[str, dict[str, Any]]:
    """Returns the latest line of each part that was measured in a setting, by name."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [row for row in map(json.loads, lines) if row["setting"] == setting]
    return {row["part"]: row for row in rows if not {"error", "absent"} & row.keys()}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError inside after so many seconds."""

    def stop(*_: Any) -> None:
        raise TimeoutError("the time that was given is over")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def measured(part: Part, setting: Setting, seconds: float) -> Mapping[str, Any]:
    """Returns a part's figures, or its error: another part may still work."""
    if part.needs_cuda and setting.device == "cpu":
        return {"skipped": "needs CUDA"}
    free(setting)
    try:
        with within(seconds):
            return part.measure(setting, **part.arguments)
    except ModuleNotFoundError as error:
        return {"absent": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def free(setting: Setting) -> None:
    """Frees what earlier parts have left, which would count as memory of the next."""
    gc.collect()
    if setting.device != "cpu":
        torch.cuda.empty_cache()


def run(setting: Setting, out: Path, names: list[str] | None, budget_seconds: float) -> None:
    """Measures the parts that are asked for and not finished, until the budget is spent."""
    deadline = time.monotonic() + budget_seconds
    every = all_parts(setting)
    for name in names or every:
        left = deadline - time.monotonic()
        if name in finished(out, setting.name) or left <= 0:
            continue
        began = time.monotonic()
        row = {"part": name, "setting": setting.name, **measured(every[name], setting, left)}
        row["wall_seconds"] = round(time.monotonic() - began, 1)
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def setting_for(args: argparse.Namespace) -> Setting:
    """Returns what is measured, with its pipeline on the disk."""
    device = "cuda" if torch.cuda.is_available() and not args.tiny else "cpu"
    shape = "smallest" if args.tiny else ARCHITECTURE.get(args.family)
    model = {"name": args.family, **({} if args.tiny else {"precision": "bf16"})}
    given = json.loads(args.model)
    if shape and "source" not in given:
        dtype = torch.float32 if args.tiny else torch.bfloat16
        folder = args.folder / shape
        model["source"] = str(build(shape, folder, dtype, device))
    model |= given
    if args.tiny:
        quick = {"steps": 2, "matmul_side": 256, "epochs": 2, "repeats": 1}
        return Setting("tiny", device, model, args.folder, (1, 2, 4), **quick)
    return Setting(args.family, device, model, args.folder)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON")
    parser.add_argument("--parts", help="names with commas between; by default all")
    parser.add_argument("--budget-seconds", type=float, default=BUDGET_SECONDS)
    parser.add_argument("--family", default="stable_diffusion", help="a family of rediffuse")
    parser.add_argument("--model", default="{}", help="the family's options, as JSON")
    parser.add_argument("--tiny", action="store_true", help="toy size, on the CPU")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "rediffuse-benchmark",
        help="for the pipeline, which later calls use again",
    )
    args = parser.parse_args()
    began = time.monotonic()
    setting = setting_for(args)
    names = args.parts.split(",") if args.parts else None
    if unknown := set(names or ()) - set(all_parts(setting)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(all_parts(setting))}")
    run(setting, args.out, names, args.budget_seconds - (time.monotonic() - began))
    print(table(finished(args.out, setting.name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
