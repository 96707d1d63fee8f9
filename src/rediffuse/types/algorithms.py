"""Protocols of algorithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from rediffuse.config.schema import Config
from rediffuse.types.data import Batch, Loss, Passes
from rediffuse.types.models import Policy

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Algorithm(Protocol):
    """Turns the rewards of an epoch into advantages, and a batch with advantages into a loss.

    Attributes:
        groups: How samples are grouped for `advantages`: by everything the model sees of the
            prompt, or by each draw of a prompt.
    """

    groups: Literal["prompt", "draw"]

    @property
    def trains_on(self) -> type[Batch]:
        """The type of batch that `loss` takes."""
        ...

    @property
    def passes(self) -> Passes:
        """How the updates of an epoch go through its samples."""
        ...

    @property
    def metric_names(self) -> Sequence[str]:
        """The names of the metrics in each `Loss`."""
        ...

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Computes the advantages of an epoch's samples.

        Args:
            rewards: Shape (B,), finite. Here B counts the samples of all processes.
            groups: Shape (B,), int64; equal for samples of the same group.

        Returns:
            Shape (B,); samples with NaN are not trained on.
        """
        ...

    def loss(self, policy: Policy, batch: Any) -> Loss:
        """Returns the loss of a batch of the type `trains_on`."""
        ...

    def check(self, config: Config) -> None:
        """Raises ConfigError if the algorithm is not valid with this configuration."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """An algorithm with a state that lasts from epoch to epoch and is saved in checkpoints."""

    def state(self) -> dict[str, Any]:
        """Returns the state as JSON-compatible values."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Restores the state from the result of `state`."""
        ...


@runtime_checkable
class HasRatio(Protocol):
    """An algorithm whose losses report likelihood ratios between the current policy and the one
    that sampled (`Loss.log_ratio`).
    """

    @property
    def max_ratio_drift(self) -> float:
        """The largest tolerable |ratio - 1| before the first update of an epoch. Both policies are
        equal then, so that any difference is a numerical error.
        """
        ...


@runtime_checkable
class HasScores(Protocol):
    """A policy-gradient algorithm: while the policy is the one that sampled, the gradient of its
    loss is a sum of scores ∇log p over steps, times a factor of each sample.

    Attributes:
        is_of_scores: Whether that holds with the present options.
    """

    @property
    def is_of_scores(self) -> bool: ...

    def step_weights(self, policy: Policy, step: Tensor) -> Tensor:
        """Returns the weights of steps in a sample's sum; `step` is (N,), the result (N,) or a
        scalar.
        """
        ...

    def policy_loss(
        self,
        log_prob: Tensor,
        sampled_log_prob: Tensor,
        advantage: Tensor,
        weights: Tensor,
    ) -> Loss:
        """Returns the loss of N rows from their log-probabilities.

        Args:
            log_prob: Shape (N,), under the policy that is trained.
            sampled_log_prob: Shape (N,), under the policy that sampled.
            advantage: Shape (N,).
            weights: The result of `step_weights`.
        """
        ...


@runtime_checkable
class Selects(Protocol):
    """An algorithm that trains on a part of an epoch's samples."""

    def num_trained(self, config: Config) -> int:
        """Returns the approximate number of samples that an epoch trains on; repeated prompts and
        equal rewards change it.
        """
        ...
