"""What algorithms can do."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.types.data import Batch, Loss, Passes
from rediffuse.types.models import Policy


@runtime_checkable
class Algorithm(Protocol):
    """How an epoch's rewards become a loss.

    Attributes:
        groups: What `advantages` is told apart: prompts by all that the model sees of them, or each
            draw of a prompt.
    """

    groups: Literal["prompt", "draw"]

    @property
    def trains_on(self) -> type[Batch]:
        """What `loss` is given."""
        ...

    @property
    def passes(self) -> Passes: ...
    @property
    def metric_names(self) -> Sequence[str]:
        """The names of the metrics that its losses report."""
        ...

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Finite rewards (B,) and their groups (B,), as `groups` asks -> (B,); NaN: not to be
        trained on.
        """
        ...

    def loss(self, policy: Policy, batch: Any) -> Loss:
        """Returns the loss of a batch, which is of the type `trains_on`."""
        ...

    def check(self, config: Config) -> None:
        """Raises ConfigError where the algorithm's mathematics forbids the plan."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """An algorithm that keeps something from epoch to epoch."""

    def state(self) -> dict[str, Any]:
        """Returns it as JSON would hold it."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Puts back what `state` gave."""
        ...


@runtime_checkable
class HasRatio(Protocol):
    """An algorithm whose loss tells the likelihood of a sample from the one that it was drawn
    with.
    """

    @property
    def max_ratio_drift(self) -> float:
        """How far from 1 their ratio may be before the first update without spoiling the loss."""
        ...


@runtime_checkable
class Selects(Protocol):
    """An algorithm that trains on some of an epoch's samples."""

    def num_trained(self, config: Config) -> int:
        """Returns about how many they are: equal prompts or rewards make it more or fewer."""
        ...
