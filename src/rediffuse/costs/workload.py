"""What one process of a run does in an epoch, as numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """The passes of one process in one epoch.

    Attributes:
        samples: Samples that it draws.
        num_steps: Denoising steps of each.
        trained_steps: Rows that a sample gives in a pass over the samples.
        trained_share: The share of the samples that is trained on.
        updates: Updates in a pass over the samples.
        inner_epochs: Passes over the samples.
        references: Whether training also needs predictions of the pretrained weights.
        encodes: Whether decoded samples are encoded again.
        keeps_states: Whether all states of a trajectory are kept for training.
        allows_one_pass: Whether the first update's gradients could be computed while sampling.
        evaluated: Images of an evaluation.
        evaluated_steps: Denoising steps of each.
        evaluated_share: Evaluations for each epoch.
        measures_kl: Whether an evaluation compares steps with the pretrained weights.
        loads_twice: Whether the pretrained network is loaded beside the trained one.
        texts: Different prompts of an epoch.
    """

    samples: int
    num_steps: int
    trained_steps: int
    trained_share: float = 1.0
    updates: int = 1
    inner_epochs: int = 1
    references: bool = False
    encodes: bool = False
    keeps_states: bool = True
    allows_one_pass: bool = False
    evaluated: int = 0
    evaluated_steps: int = 0
    evaluated_share: float = 1.0
    measures_kl: bool = False
    loads_twice: bool = False
    texts: int = 1

    @property
    def rows_per_update(self) -> int:
        """Training rows of an update, at least 1."""
        samples = self.samples * self.trained_share / self.updates
        return max(1, round(samples * self.trained_steps))

    @property
    def first_update_samples(self) -> int:
        """Samples of the first update."""
        return max(1, -(-self.samples // self.updates))
