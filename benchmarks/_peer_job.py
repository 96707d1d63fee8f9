"""What both sides of benchmarks/peer.py are asked to do and what they measure; the standard library
alone, so that both environments can import it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LEARNING_RATE = 3e-4
CLIP_RANGE = 1e-4
GUIDANCE_SCALE = 5.0
SEED = 7
PHASES = ("sampling", "training", "whole")


@dataclass(frozen=True)
class Job:
    """One run of one side, in a process of its own.

    Attributes:
        pipeline: The folder of the shared pipeline.
        out: The folder for the result.
        prompts: The file of prompts, one per line.
        adapter: A file with the initial weights of the adapter; None: as the side draws them.
        images: Samples of an epoch.
        steps: Denoising steps.
        batch: The peer's batch size, in sampling and in training.
        updates: Optimizer steps of an epoch.
        epochs: How many epochs to run.
        draws: A file with the noise and the order of the samples that the first epoch uses, for the
            peer; None: its own.
        rows: Our rows of a forward pass; None: rediffuse's default.
        record: Whether log-probabilities, gradients and weights are kept, for the gate.
    """

    pipeline: str
    out: str
    prompts: str
    images: int
    steps: int
    batch: int
    updates: int
    epochs: int
    adapter: str | None = None
    draws: str | None = None
    rows: int | None = None
    record: bool = False

    def write(self) -> Path:
        """Writes the job into its folder and returns the file."""
        path = Path(self.out) / "job.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: str) -> "Job":
        return cls(**json.loads(Path(path).read_text()))

    @property
    def arrays(self) -> Path:
        """The recorded tensors."""
        return Path(self.out) / "recorded.safetensors"

    @property
    def result(self) -> Path:
        """The measurements."""
        return Path(self.out) / "result.json"

    def texts(self) -> list[str]:
        return Path(self.prompts).read_text().split("\n")


def write_result(
    job: Job,
    epochs: list[dict[str, float]],
    growth_bytes: int,
    chosen: dict[str, Any] | None = None,
) -> None:
    """Writes what was measured.

    Args:
        job: The job that is done.
        epochs: Seconds and metrics of each epoch.
        growth_bytes: By how much the peak of memory during the loop exceeds its use before.
        chosen: What the side chose by itself.
    """
    found = {"epochs": epochs, "growth_bytes": growth_bytes, "chosen": chosen or {}}
    job.result.write_text(json.dumps(found))


def reward(images: Any) -> Any:
    """Returns how much brighter the left half of each image is than its right half, (B,).

    It is smooth, so that a rounding error in an image stays one in its reward, and its mean is
    about 0, so that no digits are lost where the mean is subtracted.

    Args:
        images: Shape (B, 3, H, W), in [0, 1].
    """
    half = images.shape[-1] // 2
    left, right = images[..., :half], images[..., half:]
    return left.mean((1, 2, 3)) - right.mean((1, 2, 3))
