"""The base of both forms of reward-weighted regression: the weighted pretraining loss on own
samples.
"""

from dataclasses import dataclass
from typing import Literal

from rediffuse.config.schema import Config, PositiveInt
from rediffuse.types import CleanSamples, EncodedSamples, Loss, Passes, Policy


@dataclass(frozen=True)
class WeightedRegression:
    """Options and loss of reward-weighted regression (Black et al. 2023, sec. 4.2).

    Attributes:
        inner_epochs: How many passes are made over the epoch's samples, each with new noise and
            times.
        learns_from: Trains on the sampled "latents", or on the decoded "samples" encoded again as
            in the paper's code, where each pass draws new latents from the autoencoder's
            distribution. "images" is an older name of "samples".
        restart_optimizer: Whether the optimizer's moments are reset in each epoch, as in the
            paper's code.
        reshuffle: Whether each pass draws new minibatches; the paper's code keeps those of the
            first.
        guided: Whether to regress the prediction with classifier-free guidance, as in sampling, or
            the conditional prediction alone (published as train_cfg: false).
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
        """Accepts every configuration."""
