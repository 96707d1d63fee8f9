"""Measures the fixed images of evaluations: held-out rewards, image statistics and the divergence
from the pretrained model.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.evaluation.divergence import kl_to_pretrained
from rediffuse.evaluation.fixed_samples import MOST_TRAJECTORIES, FixedSamples
from rediffuse.evaluation.previews import View
from rediffuse.faults import count_of_broken, told
from rediffuse.images import read
from rediffuse.maths import appearance
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.memory import RowLimits
from rediffuse.processes.world import World
from rediffuse.rollout import Draws, collect
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import HeldOut, MonitorRow, Statistics, read_monitor
from rediffuse.scoring.journal import finite_or_none
from rediffuse.scoring.scorer import Scorer
from rediffuse.scoring.terms import Term
from rediffuse.types import HasFeatures, Prompt, Rollout, TransitionsWithMeans

ALIKE = 0.25
"""Images are nearly identical if they are closer than this share of the pretrained images' median
nearest-neighbour distance.
"""
PATIENCE_SECONDS = 30.0
"""How long transient failures of a held-out reward are retried; the run does not depend on it."""
LONGEST_CALL_SECONDS = 300.0
"""The time limit of a held-out reward's call; a reward that exceeds it is not called again."""


@dataclass(frozen=True)
class Base:
    """Measurements of the pretrained model's finite images.

    Attributes:
        features: Shape (N, D).
        places: The number of each image among all images of the evaluation.
        apart: The mean distance of two images of a prompt, or of any two if no prompt has two.
        nearest: The median distance of an image to its nearest neighbour.
    """

    features: Tensor
    places: Sequence[int]
    apart: float
    nearest: float

    @classmethod
    def of(cls, features: Tensor, groups: Tensor, places: Sequence[int]) -> "Base":
        """Measures images with features (N, D) and groups (N,), which are equal for equal
        prompts.
        """
        apart = appearance.diversity(features, groups)
        if apart.isnan():
            apart = appearance.diversity(features, torch.zeros_like(groups))
        return cls(features, places, apart.item(), appearance.nearest(features).median().item())

    def distance(self, features: Tensor, places: Sequence[int]) -> Tensor:
        """Returns the mean distance of images from the same pretrained images, in units of `apart`,
        over images that are finite in both; NaN if there are none.
        """
        here = {place: row for row, place in enumerate(places)}
        both = [(here[place], row) for row, place in enumerate(self.places) if place in here]
        now, first = ([pair[i] for pair in both] for i in (0, 1))
        moved: Tensor = (features[now] - self.features[first]).norm(dim=1).mean()
        return moved / self.apart


class Monitor:
    """Scores and measures the fixed images of each evaluation.

    Args:
        rewards: The rewards of the run. Held-out ones score the images. Features come from the
            first that has any, held-out ones first.
        tell: Reports a problem.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        rewards: Sequence[Term],
        config: Config,
        run: RunFolder,
        world: World,
        limits: RowLimits,
        tell: Callable[[str], None],
    ) -> None:
        self._policy, self._config, self._limits = policy, config, limits
        self._held_out = {term.name: term for term in rewards if term.use.is_held_out}
        self._run, self._world, self._tell = run, world, tell
        by_use = [*self._held_out.values(), *rewards]
        self._eye = next((each for each in by_use if isinstance(each.reward, HasFeatures)), None)
        self._modality = policy.denoiser.modality
        self.view = View(self._modality)
        self._base: Base | None = None
        self._said: set[str] = set()
        self._hung: set[str] = set()

    def look(self, epoch: int, pictures: Rollout, trajectories: Rollout | None) -> MonitorRow:
        """Measures an evaluation, appends a row to monitor.jsonl, and returns it.

        Args:
            epoch: The number of completed epochs.
            pictures: The images, of the same prompts and noise in every evaluation.
            trajectories: Those of a few of the images, with their means; None if none is finite or
                if images are not made as in training.
        """
        began = time.perf_counter()
        seen = replace(pictures, samples=self._modality.quantized(pictures.samples))
        row: MonitorRow = {
            "epoch": epoch,
            "images_per_prompt": _images_per_prompt(pictures.prompts),
            "held_out": {
                name: self._asked(name, seen, first=epoch == 0) for name in self._held_out
            },
            "statistics": {
                **self._statistics(epoch, seen),
                **self._kl(epoch, pictures.prompts, trajectories),
            },
            "seconds": time.perf_counter() - began,
        }
        if broken := {str(i): fault for i, fault in enumerate(pictures.faults) if fault}:
            row["broken"] = broken
            self._tell(
                f"{count_of_broken(len(broken), len(pictures.prompts))} {told(broken.values())}"
            )
        log.append(self._run.monitor, [row])
        return row

    def _asked(self, name: str, seen: Rollout, *, first: bool) -> HeldOut:
        values, parts = self._values(name, seen)
        entry: HeldOut = {
            "mean": finite_or_none(values.nanmean().item()),
            "values": [finite_or_none(value) for value in values.tolist()],
            "parts": {
                part: [finite_or_none(value) for value in each.tolist()]
                for part, each in parts.items()
            },
        }
        if first:  # the score of a total mismatch: each prompt's images with the next prompt
            turn = _images_per_prompt(seen.prompts)
            others, _ = self._values(
                name, replace(seen, prompts=[*seen.prompts[turn:], *seen.prompts[:turn]])
            )
            entry["of_other_prompts"] = finite_or_none(others.nanmean().item())
        return entry

    def _values(self, name: str, seen: Rollout) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns a held-out reward's values (N,) and its parts. Failures become NaN, since they
        must not affect the run.
        """
        if name in self._hung:
            return torch.full((len(seen.prompts),), torch.nan), {}
        usual = self._config.scoring
        options = replace(
            usual,
            max_failed=1.0,
            deadline_seconds=min(PATIENCE_SECONDS, usual.deadline_seconds),
            timeout_seconds=min(LONGEST_CALL_SECONDS, usual.timeout_seconds),
        )
        scorer = Scorer(
            self._held_out[name].judged,
            options,
            name=name,
            num_samples=len(seen.prompts),
            caller=self._held_out[name].caller,
            stop_if_asked=self._world.stop_here_if_asked,
        )
        _, scores = scorer.score([seen], len(seen.prompts))
        if scorer.failure is not None:
            self._say_once(
                name,
                f"the held-out reward {name} failed, and its missing values are left out:"
                f" {scorer.failure}",
            )
            if scorer.failure.status == "timeout":
                self._hung.add(name)
        return scores.rewards, scores.parts

    def _say_once(self, name: str, message: str) -> None:
        if name not in self._said:
            self._said.add(name)
            self._tell(message)

    def _statistics(self, epoch: int, seen: Rollout) -> Statistics:
        """Returns statistics of the finite images; empty if there are none.

        Distances are relative to those of the pretrained images, so that diversity begins at 1. It
        is missing if no prompt has two images.
        """
        places = seen.whole
        if not places:
            return {}
        prompts, groups = [seen.prompts[i] for i in places], seen.groups[places]
        images = self.view.preview(seen.samples[places], prompts)
        features = self._features(images)
        base = self._base_of(epoch, features, seen)
        found: Statistics = {
            "brightness": _number(appearance.brightness(images).mean()),
            "saturation": _number(appearance.saturation(images).mean()),
            "edge_density": _number(appearance.edge_density(images).mean()),
            "colour_entropy": _number(appearance.colour_entropy(images).mean()),
        }
        if base is not None:
            close = appearance.nearest(features) < ALIKE * base.nearest
            found["diversity"] = _number(appearance.diversity(features, groups) / base.apart)
            found["near_identical"] = _number(close.float().mean())
            found["distance"] = _number(base.distance(features, places))
        return found

    def _base_of(self, epoch: int, features: Tensor, seen: Rollout) -> Base | None:
        """Measures the pretrained images, which a resumed run reads from its folder; None if they
        are missing or none is finite.
        """
        if epoch == 0:
            self._base = Base.of(features, seen.groups[seen.whole], seen.whole)
        paths = sorted((self._run.samples / "epoch-00000").glob("[0-9]*.png"))
        if self._base is None and len(paths) == len(seen.prompts):
            first = [row for row in read_monitor(self._run) if row["epoch"] == 0]
            broken = first[0].get("broken", {}) if first else {}
            places = [i for i in range(len(paths)) if str(i) not in broken]
            if places:
                pictures = torch.stack([read(paths[i]) for i in places])
                self._base = Base.of(self._features(pictures), seen.groups[places], places)
        return self._base

    def _features(self, images: Tensor) -> Tensor:
        """Returns features (B, D) of a reward's network, or thumbnails if there are no valid
        ones.
        """
        if self._eye is not None:
            try:
                features: Tensor = self._eye.reward.features(images).float().cpu()
                if (
                    features.ndim == 2
                    and len(features) == len(images)
                    and features.isfinite().all()
                ):
                    return features
                problem = (
                    f"they have shape {tuple(features.shape)} for {len(images)} images, or are"
                    " not finite"
                )
            except Exception as error:  # it may be the user's code
                problem = f"{type(error).__name__}: {error}"
            self._say_once(
                "features",
                f"features of {self._eye.name} cannot be used ({problem}); distances are measured"
                " between thumbnails instead",
            )
            self._eye = None
        return appearance.thumbnails(images)

    def _kl(
        self, epoch: int, prompts: Sequence[Prompt], trajectories: Rollout | None
    ) -> Statistics:
        """Returns the mean KL in nats along trajectories as in training; before training it is 0,
        since the policy is the pretrained one.
        """
        if not self._config.evaluation.kl:
            return {}
        as_in_training = self._config.evaluation.is_as_in_training
        if as_in_training and trajectories is None:
            return {"kl": None}
        if epoch == 0:
            return {"kl": 0.0}
        along = trajectories if as_in_training else self._sampled(prompts)
        if along is None:
            return {"kl": None}
        size = self._limits.sampling.rows
        found = kl_to_pretrained(self._policy, along, size, self._world)
        return {"kl": _number(found.mean())}

    def _sampled(self, prompts: Sequence[Prompt]) -> Rollout | None:
        """Samples trajectories as in training, from the same noise, for evaluations with another
        sampler or guidance.
        """
        rows = range(0, len(prompts), _images_per_prompt(prompts))[:MOST_TRAJECTORIES]
        draws = Draws(rows, [prompts[i] for i in rows], (self._config.seed, "pictures"))
        made, keep = FixedSamples(len(rows), 1), TransitionsWithMeans
        for part in collect(self._policy, draws, self._limits, self._world, keep):
            made.receive(part)
        return made.trajectories()


def _number(value: Tensor) -> float | None:
    return finite_or_none(value.item())


def _images_per_prompt(prompts: Sequence[Prompt]) -> int:
    """Returns the number of images of each prompt, which is equal for all of them."""
    return len(prompts) // len({prompt.key for prompt in prompts})
