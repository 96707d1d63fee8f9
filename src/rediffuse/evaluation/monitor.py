"""What becomes of the fixed pictures along a run: rewards that nothing is trained on, and what
collapse does to pictures.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.faults import count_of_broken, told
from rediffuse.images import read
from rediffuse.maths import appearance
from rediffuse.maths.gaussian import Gaussian
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.threads import Caller
from rediffuse.processes.world import World
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import HeldOut, MonitorRow, Statistics, read_monitor
from rediffuse.scoring.journal import finite_or_none
from rediffuse.scoring.scorer import Scorer
from rediffuse.scoring.terms import Term
from rediffuse.types import HasFeatures, Prompt, Rollout

ALIKE = 0.25
"""Of the pretrained pictures' median distance to the nearest other: closer than this, two pictures
are nearly identical.
"""
WAYS = 6
"""Of which the KL is measured: it costs as much as sampling them twice."""
PATIENCE_SECONDS = 30.0
"""With a held-out reward that says it will answer later: the run does not need it."""
LONGEST_CALL_SECONDS = 300.0
"""Of a held-out reward; one that takes longer is not asked again."""


@dataclass(frozen=True)
class Base:
    """Of the pretrained pictures that are finite. features: (N, D)
    places: the number of each among all pictures
    apart: how far two of them are, of a prompt where it has two
    nearest: the median distance to the nearest other
    """

    features: Tensor
    places: Sequence[int]
    apart: float
    nearest: float

    @classmethod
    def of(cls, features: Tensor, groups: Tensor, places: Sequence[int]) -> "Base":
        """Measures the pretrained pictures; features are (N, D), groups (N,)."""
        apart = appearance.diversity(features, groups)
        if apart.isnan():
            apart = appearance.diversity(features, torch.zeros_like(groups))
        return cls(features, places, apart.item(), appearance.nearest(features).median().item())

    def distance(self, features: Tensor, places: Sequence[int]) -> Tensor:
        """How far the pictures have moved, on average, from these: those that are finite in both.
        NaN where none is.
        """
        here = {place: row for row, place in enumerate(places)}
        both = [(here[place], row) for row, place in enumerate(self.places) if place in here]
        now, first = ([pair[i] for pair in both] for i in (0, 1))
        moved: Tensor = (features[now] - self.features[first]).norm(dim=1).mean()
        return moved / self.apart


class Monitor:
    """Scores and measures the fixed images of each evaluation.

    Args:
        rewards: Those of the run. Those of weight 0 score the images; of the others, the first that
            knows how alike images are is used for that, if no held-out reward does.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        rewards: Sequence[Term],
        config: Config,
        run: RunFolder,
        world: World,
        tell: Callable[[str], None],
        caller: Caller,
    ) -> None:
        self._policy, self._config = policy, config
        self._held_out = {term.name: term for term in rewards if term.use.is_held_out}
        self._run, self._world, self._tell, self._caller = run, world, tell, caller
        by_use = [*self._held_out.values(), *rewards]
        self._eye = next((each for each in by_use if isinstance(each.reward, HasFeatures)), None)
        self._modality = policy.denoiser.modality
        self._base: Base | None = None
        self._said: set[str] = set()
        self._hung: set[str] = set()

    def look(self, epoch: int, pictures: Rollout) -> None:
        """A row about the policy after so many epochs. pictures: of the same prompts and noise
        every time, with the way there.
        """
        began = time.perf_counter()
        seen = replace(pictures, samples=self._modality.quantized(pictures.samples))
        row: MonitorRow = {
            "epoch": epoch,
            "images_per_prompt": _images_per_prompt(pictures.prompts),
            "held_out": {
                name: self._asked(name, seen, first=epoch == 0) for name in self._held_out
            },
            "statistics": {**self._statistics(epoch, seen), **self._kl(pictures)},
            "seconds": time.perf_counter() - began,
        }
        if broken := {str(i): fault for i, fault in enumerate(pictures.faults) if fault}:
            row["broken"] = broken
            self._tell(
                f"{count_of_broken(len(broken), len(pictures.prompts))} {told(broken.values())}"
            )
        log.append(self._run.monitor, [row])

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
        if first:  # what there is to lose: each prompt's pictures are held against the next prompt
            turn = _images_per_prompt(seen.prompts)
            others, _ = self._values(
                name, replace(seen, prompts=[*seen.prompts[turn:], *seen.prompts[:turn]])
            )
            entry["of_other_prompts"] = finite_or_none(others.nanmean().item())
        return entry

    def _values(self, name: str, seen: Rollout) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(N,) and its parts, NaN where there is none: a held-out reward never harms the run."""
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
            caller=self._caller,
            stop_if_asked=self._world.stop_here_if_asked,
        )
        _, scores = scorer.score([seen], len(seen.prompts))
        if scorer.failure is not None:
            self._say_once(
                name, f"the held-out reward {name} is left out where it fails: {scorer.failure}"
            )
            if scorer.failure.status == "timeout":
                self._hung.add(name)
        return scores.rewards, scores.parts

    def _say_once(self, name: str, message: str) -> None:
        if name not in self._said:
            self._said.add(name)
            self._tell(message)

    def _statistics(self, epoch: int, seen: Rollout) -> Statistics:
        """Of the pictures that are finite; nothing where none is.

        Distances are in units of the pretrained pictures' own: diversity begins at 1, or is missing
        where no prompt has two.
        """
        places = seen.whole
        if not places:
            return {}
        images, groups = self._modality.preview(seen.samples[places]), seen.groups[places]
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
        """Of a run that goes on, from its first pictures; None where they are gone, or none of them
        was finite.
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
        """Of thumbnails, where no reward has any, or what it has is not a row of numbers for each
        picture.
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
                    f"they have shape {tuple(features.shape)} for {len(images)} pictures, or"
                    " are not finite"
                )
            except Exception as error:  # it may be anyone's code
                problem = f"{type(error).__name__}: {error}"
            self._say_once(
                "features",
                f"features of {self._eye.name} cannot be used ({problem}); thumbnails are",
            )
            self._eye = None
        return appearance.thumbnails(images)

    def _kl(self, pictures: Rollout) -> Statistics:
        """In nats, of the first prompts' first pictures."""
        if not self._config.evaluation.kl:
            return {}
        whole = set(pictures.whole)
        first = [
            i
            for i in range(0, len(pictures.prompts), _images_per_prompt(pictures.prompts))
            if i in whole
        ][:WAYS]
        if not first:
            return {"kl": None}
        found = kl_to_pretrained(
            self._policy, pictures, first, self._config.micro_batch_size, self._world
        )
        return {"kl": _number(found.mean())}


def kl_to_pretrained(
    policy: DiffusionPolicy, rollout: Rollout, rows: Sequence[int], size: int, world: World
) -> Tensor:
    """(rows,) in nats, of the whole way to each picture: summed over its random steps and the
    entries of a latent, each step's KL(policy || pretrained) at the states that the policy went
    through. size: rows in one forward pass.
    """
    way = rollout.trajectory

    @torch.no_grad()
    def laws(chosen: Sequence[int]) -> list[Gaussian]:
        conditioning = policy.denoiser.encode([rollout.prompts[i] for i in chosen])
        states = way.path[list(chosen)].to(world.device)
        found = []
        for step in way.steps.tolist():
            world.stop_here_if_asked()
            found.append(
                policy.act(states[:, step], torch.full((len(chosen),), step), conditioning)
            )
        return found

    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    own = list(world.map(laws, parts))
    with policy.using("start"):
        pretrained = list(world.map(laws, parts))
    each = [
        torch.stack([p.kl(q) for p, q in zip(*pair, strict=True)]).sum(0)
        for pair in zip(own, pretrained, strict=True)
    ]
    return torch.cat(each).cpu() * way.path[0, 0].numel()


def _number(value: Tensor) -> float | None:
    return finite_or_none(value.item())


def _images_per_prompt(prompts: Sequence[Prompt]) -> int:
    """Of pictures that stand prompt by prompt, as many of each."""
    return len(prompts) // len({prompt.shown for prompt in prompts})
