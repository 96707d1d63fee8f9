"""Measures what quantised weights change of the embedded model before training: the bytes of its
network, its predictions, the distributions of its steps, and how far they move by rows in a pass.

python benchmarks/quantized.py (with the extra bnb); writes benchmarks/results/quantized.json.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse.models.emoji import Emoji
from rediffuse.policy import DiffusionPolicy
from rediffuse.rollout import Draws, denoise
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import Prompt, Trajectory

RESULTS = Path(__file__).parent / "results" / "quantized.json"
ROWS = 8
CASES = [(p, q) for p in ("fp32", "bf16") for q in (None, "int8", "nf4")]


def policy_of(precision: str, quantize: str | None) -> DiffusionPolicy:
    denoiser = Emoji(precision=precision, quantize=quantize).load("cpu", 0)
    return DiffusionPolicy(denoiser, DDIM(num_steps=8).bind(denoiser.schedule))


def laws(policy: DiffusionPolicy, way: Trajectory, rows: int) -> list[Any]:
    """Returns the distributions of the steps of the first `rows` samples."""
    conditioning = policy.denoiser.encode([Prompt("a cat")] * rows)
    return [
        policy.act(way.path[:rows, step], torch.full((rows,), step), conditioning)
        for step in way.steps.tolist()
    ]


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    exact = policy_of("fp32", None)
    way = denoise(exact, Draws(range(ROWS), [Prompt("a cat")] * ROWS, ("quantised",)))
    wanted, rows = laws(exact, way, ROWS), []
    for precision, quantize in CASES:
        policy = policy_of(precision, quantize)
        found = laws(policy, way, ROWS)
        alone = laws(policy, way, 1)
        after = [way.path[:, step + 1] for step in way.steps.tolist()]
        drift = [
            one.log_prob(x[:1]) - law.log_prob(x)[:1]
            for one, law, x in zip(alone, found, after, strict=True)
        ]
        kl = torch.stack([law.kl(want) for law, want in zip(found, wanted, strict=True)])
        rows.append(
            {
                "precision": precision,
                "quantize": quantize or "none",
                "weight_bytes": weight_bytes(policy),
                "kl_first_step": kl[0].mean().item(),
                "kl_mean": kl.mean().item(),
                "drift_rows_1": torch.stack(drift).abs().max().item(),
            }
        )
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{v:.1e}" if isinstance(v, float) else str(v) for v in row.values()))


def weight_bytes(policy: DiffusionPolicy) -> int:
    named: list[tuple[str, Tensor]] = [*policy.denoiser.network.named_parameters()]
    return sum(value.nbytes for name, value in named if "lora_" not in name)


if __name__ == "__main__":
    main()
