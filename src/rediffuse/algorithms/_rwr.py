"""What both forms of reward-weighted regression share: the weighted loss of pretraining on their
own samples.
"""

from dataclasses import dataclass
from typing import Literal

from rediffuse.config.schema import Config, PositiveInt
from rediffuse.types import CleanSamples, EncodedSamples, Loss, Passes, Policy


@dataclass(frozen=True)
class WeightedRegression:
    """inner_epochs: passes over each epoch's samples, every time with new noise and new times.

    learns_from: the sampled latents or, as the paper's code, the decoded samples encoded again, in
    every pass by a new draw from the autoencoder's distribution. Older configurations call samples
    images.
    restart_optimizer: with fresh moments after each sampling, as the paper's code.
    reshuffle: into new minibatches in every pass; the paper's code keeps those of the first.
    guided: whether what is regressed is the output of classifier-free guidance, as in sampling, or
    the network's own for the prompt (published as train_cfg: false).
    """

    inner_epochs: PositiveInt = 5
    learns_from: Literal["latents", "samples", "images"] = "latents"
    restart_optimizer: bool = True
    reshuffle: bool = True
    guided: bool = True
    metric_names = ()
    groups = "prompt"

    def __post_init__(self) -> None:
        if self.learns_from == "images":
            object.__setattr__(self, "learns_from", "samples")

    @property
    def trains_on(self) -> type[CleanSamples]:
        return EncodedSamples if self.learns_from == "samples" else CleanSamples

    @property
    def passes(self) -> Passes:
        return Passes(self.inner_epochs, 1, self.restart_optimizer, self.reshuffle)

    def loss(self, policy: Policy, batch: CleanSamples) -> Loss:
        return Loss((batch.weight * policy.denoising_error(batch, guided=self.guided)).mean())

    def check(self, config: Config) -> None:
        """Any number of updates will do."""
