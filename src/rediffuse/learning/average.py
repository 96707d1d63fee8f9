"""A moving average of what learns, from which pictures and exports are made; sampling and training
never see it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

PREFIX = "average/"
"""Of its names in a checkpoint, beside those of the weights."""


class Average:
    """decay: the share that stays at each update; None: there is no average, and what learns is
    shown itself.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float | None) -> None:
        self._parameters = parameters
        self._mix = None if decay is None else get_ema_multi_avg_fn(decay)
        self._values = (
            {} if decay is None else {name: p.detach().clone() for name, p in parameters.items()}
        )

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards what was learned, after an update."""
        if self._mix:
            self._mix(list(self._values.values()), list(self._parameters.values()), 0)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the network's weights are the average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, Tensor]:
        """The average itself, to be saved or put back."""
        return {PREFIX + name: value for name, value in self._values.items()}

    def _exchange(self) -> None:
        for name, value in self._values.items():
            parameter = self._parameters[name]
            parameter.data, self._values[name] = value, parameter.data
