"""Compares the speed of a demo with that of another checkout, evaluations included.

python benchmarks/demo.py --against ../other                    demo/incompressibility, five pairs
python benchmarks/demo.py --against ../other --recipe demo/counting --pairs 3

Runs of both alternate, each in a process of its own with this environment's packages. An epoch's
cost is its CPU seconds: evaluation, sampling, rewards, update, logs and checkpoint. The first epoch
is left out. The ratio of a pair is the other's seconds over ours.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
RUN = """
import json, resource, sys
import rediffuse

def seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

recipe, epochs, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
found, began = [], None
with rediffuse.begin(recipe, folder, epochs=epochs + 1) as run:
    while len(found) < epochs:
        began = seconds()
        epoch = run.step()
        found.append(seconds() - began)
    run.stop()
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"epochs": found[1:], "samples": len(epoch.prompts), "peak_kilobytes": used}))
"""


def measured(checkout: Path, recipe: str, epochs: int) -> dict[str, float]:
    """Returns the images per CPU second and the peak memory in MB of a run of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RUN, recipe, str(epochs), f"{folder}/run"]
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        )
    found = json.loads(done.stdout.splitlines()[-1])
    rate = found["samples"] / median(found["epochs"])
    return {"images_per_second": rate, "peak_megabytes": found["peak_kilobytes"] / 1024}


def main() -> None:
    """Prints a line for each pair, and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, required=True, help="the other checkout")
    parser.add_argument("--recipe", default="demo/incompressibility")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="of each run, the first left out")
    asked = parser.parse_args()
    ratios = []
    for _ in range(asked.pairs):
        sides = [
            measured(each, asked.recipe, asked.epochs) for each in (asked.against.resolve(), ROOT)
        ]
        other, ours = (side["images_per_second"] for side in sides)
        ratios.append(ours / other)
        peaks = " and ".join(f"{side['peak_megabytes']:.0f} MB" for side in sides)
        print(f"{other:.2f} and {ours:.2f} images per CPU s, {peaks}: {ratios[-1]:.2f}", flush=True)
    print(f"median {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
