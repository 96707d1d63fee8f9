"""The samples of one evaluation, which arrive in parts."""

from dataclasses import replace

from rediffuse.rollout import arrived
from rediffuse.types import Rollout

MOST_TRAJECTORIES = 6
"""The number of trajectories to measure the KL on; each random step of them costs a forward pass of
the pretrained model.
"""


class FixedSamples:
    """All samples of an evaluation, and a few of their trajectories.

    Args:
        num_samples: The number of samples of the evaluation.
        images_per_prompt: The number of consecutive samples with the same prompt.
    """

    def __init__(self, num_samples: int, images_per_prompt: int) -> None:
        self._num_samples, self._images_per_prompt = num_samples, images_per_prompt
        self._parts: list[Rollout] = []
        self._trajectories: list[Rollout] = []

    def receive(self, part: Rollout) -> None:
        """Adds the next samples. If their trajectories hold means, those of the first sample of
        each prompt are kept, if it is finite, up to MOST_TRAJECTORIES.
        """
        way = part.trajectory
        room = MOST_TRAJECTORIES - sum(len(each.prompts) for each in self._trajectories)
        firsts = [i for i in part.whole if part.indices[i] % self._images_per_prompt == 0][:room]
        if way.means is not None and firsts:
            kept = part.only(firsts)
            self._trajectories.append(replace(kept, samples=kept.samples[:0].clone()))
        ends = replace(arrived(way.latents.clone()), faults=way.faults)
        self._parts.append(replace(part, trajectory=ends))

    def rollout(self) -> Rollout:
        """Returns all samples, with their final latents."""
        return Rollout.joined(self._parts, self._num_samples)

    def trajectories(self) -> Rollout | None:
        """Returns the trajectories that were kept, without images; None if there are none."""
        kept = sum(len(each.prompts) for each in self._trajectories)
        return Rollout.joined(self._trajectories, kept) if kept else None
