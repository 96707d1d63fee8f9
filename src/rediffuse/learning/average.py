"""The exponential moving average of the trained weights.

Pictures and exports use it; sampling and training do not.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

PREFIX = "average/"
"""The prefix of its tensors' names in a checkpoint, where they are stored beside the weights."""


class Average:
    """The exponential moving average of parameters.

    Args:
        parameters: The trained parameters, by name.
        decay: The share of the average that is kept at each update, in [0, 1]; None disables the
            average, and the parameters themselves are used instead.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float | None) -> None:
        self._parameters = parameters
        self._mix = None if decay is None else get_ema_multi_avg_fn(decay)
        self._values = (
            {} if decay is None else {name: p.detach().clone() for name, p in parameters.items()}
        )

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the parameters, after an optimizer step."""
        if self._mix:
            self._mix(list(self._values.values()), list(self._parameters.values()), 0)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Replaces the network's weights by the average inside the context."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, Tensor]:
        """Returns the average's tensors, not copies, by prefixed name; empty without an average."""
        return {PREFIX + name: value for name, value in self._values.items()}

    def _exchange(self) -> None:
        for name, value in self._values.items():
            parameter = self._parameters[name]
            parameter.data, self._values[name] = value, parameter.data
