"""CPU seconds until a command answers, and until the default recipe begins to sample: the median of
five processes. python benchmarks/startup.py
"""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median

PROCESSES = 5
COMMAND = "from rediffuse.cli import main; main({})"
TRAIN = """
import os
from rediffuse.cli import main
from rediffuse.models.emoji import Emoji

load = Emoji.load

def watched(self, device, seed):
    denoiser = load(self, device, seed)
    {until}
    return denoiser

def leave(*given):
    os._exit(0)

Emoji.load = watched
main(["train", "--run-dir", {folder!r}])
"""
"""The default recipe, in a process that exits without cleaning up at the place `until`."""
FIRST_PASS = "denoiser.network.register_forward_pre_hook(leave)"
FIRST_IMAGES = (
    "decode = denoiser.decode; denoiser.decode = lambda *given: leave(decode(*given).sum())"
)


def cpu_seconds(program: str) -> float:
    """Returns the CPU seconds, user and system, of a Python process with one thread of torch."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def programs(folder: Path) -> dict[str, str]:
    """Returns the programs by what is printed beside their time; runs begin in the folder."""
    first_pass = TRAIN.format(until=FIRST_PASS, folder=str(folder / "pass"))
    first_images = TRAIN.format(until=FIRST_IMAGES, folder=str(folder / "images"))
    return {
        "python -c pass": "pass",
        "import torch": "import torch",
        "rediffuse --help": COMMAND.format(["--help"]),
        "rediffuse list": COMMAND.format(["list"]),
        "rediffuse plan": COMMAND.format(["plan"]),
        "rediffuse train, until the first pass of the network": first_pass,
        "rediffuse train, until the first images": first_images,
    }


def main() -> None:
    """Prints one line for each program. The programs take turns, so that a busy machine slows all
    of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        seconds: dict[str, list[float]] = {}
        for _ in range(PROCESSES + 1):
            for name, program in programs(Path(tempfile.mkdtemp(dir=folder))).items():
                seconds.setdefault(name, []).append(cpu_seconds(program))
    for name, measured in seconds.items():
        kept = measured[1:]  # the first process may compile and read from the disk
        print(f"{median(kept):6.2f} s  ({min(kept):.2f} to {max(kept):.2f})  {name}")
    # two libraries of a run import scipy where it is installed, which takes most of a second
    print("scipy is", "installed" if find_spec("scipy") else "not installed")


if __name__ == "__main__":
    main()
