"""The gate of benchmarks/peer.py: whether one epoch of both sides computed the same."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

LIMITS = {"log_probs": 1e-4, "loss": 1e-5, "gradient": 1e-4, "update": 1e-3}
"""The largest differences: absolute for log-probabilities and the loss, else relative L2 norms."""


@dataclass(frozen=True)
class Gate:
    """The differences of two sides after one epoch from equal weights, noise and order.

    Attributes:
        log_probs: The largest difference of a log-probability.
        loss: The difference of the epoch's mean losses.
        gradient: Of the first update's gradient, before the optimizer: relative L2 norm.
        update: Of the change of the adapter's weights: relative L2 norm.
        judged: The names of the differences that must be small.
    """

    log_probs: float
    loss: float
    gradient: float
    update: float
    judged: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """What is too large, with its limit; NaN is too large."""
        found = {name: getattr(self, name) for name in self.judged}
        return [
            f"{name} differs by {value:.2g}, more than {LIMITS[name]:g}"
            for name, value in found.items()
            if not value <= LIMITS[name]
        ]


def compared(
    peer: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    losses: tuple[float, float],
    judged: tuple[str, ...],
) -> Gate:
    """Compares what both sides recorded.

    Args:
        peer: `log_probs` (images, steps) and, by the name of each weight, `before.…`, `after.…`
            and `gradient.…`.
        ours: The same of our side.
        losses: The mean loss of both sides.
        judged: The names of the differences that must be small.

    Raises:
        ValueError: The sides trained different weights, or began with different values.
    """
    weights = sorted(name for name in peer if name.startswith("before."))
    if weights != sorted(name for name in ours if name.startswith("before.")):
        raise ValueError("the two sides train different weights")
    if any(not torch.equal(peer[name], ours[name]) for name in weights):
        raise ValueError("the two sides begin with different weights")
    names = [name.removeprefix("before.") for name in weights]
    gradients = [_flat(side, "gradient", names) for side in (peer, ours)]
    updates = [_flat(side, "after", names) - _flat(side, "before", names) for side in (peer, ours)]
    far = (peer["log_probs"] - ours["log_probs"]).abs().max().item()
    loss = abs(losses[0] - losses[1])
    return Gate(far, loss, _relative(*gradients), _relative(*updates), judged)


def _flat(side: Mapping[str, Tensor], kind: str, names: list[str]) -> Tensor:
    return torch.cat([side[f"{kind}.{name}"].double().flatten() for name in names])


def _relative(expected: Tensor, found: Tensor) -> float:
    """Returns the relative L2 norm of the difference; NaN if nothing was expected."""
    return ((found - expected).norm() / expected.norm()).item()
