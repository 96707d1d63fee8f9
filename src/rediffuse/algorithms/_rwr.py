"""What both forms of reward-weighted regression share: the weighted loss of pretraining on their own samples."""

from dataclasses import dataclass
from typing import Any, Literal

from rediffuse.config.schema import Config, PositiveInt
from rediffuse.types import CleanSamples, Loss, Policy


@dataclass(frozen=True)
class WeightedRegression:
    """inner_epochs: passes over each epoch's samples, every time with new noise and new times.

    learns_from: the sampled latents or, as the paper's code, the decoded samples encoded again, in every pass by a new draw
    from the autoencoder's distribution. Older configurations call samples images.
    restart_optimizer: with fresh moments after each sampling, as the paper's code.
    reshuffle: into new minibatches in every pass; the paper's code keeps those of the first.
    guided: whether what is regressed is the output of classifier-free guidance, as in sampling, or the network's own for the
    prompt (published as train_cfg: false).
    """

    inner_epochs: PositiveInt = 5
    learns_from: Literal["latents", "samples", "images"] = "latents"
    restart_optimizer: bool = True
    reshuffle: bool = True
    guided: bool = True
    metric_names = ()
    groups = "prompt"
    steps_per_sample = 1
    needs_reference = False
    max_ratio_drift = float("inf")

    def __post_init__(self) -> None:
        if self.learns_from == "images":
            object.__setattr__(self, "learns_from", "samples")

    def loss(self, policy: Policy, batch: CleanSamples) -> Loss:
        return Loss((batch.weight * policy.denoising_error(batch, guided=self.guided)).mean())

    def num_trained(self, config: Config) -> int:
        return config.num_samples

    def check(self, config: Config) -> None:
        """Any number of updates will do."""

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing is remembered."""
