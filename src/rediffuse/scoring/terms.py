"""The rewards of a run as one: the weighted sum that is trained on, and rewards of weight 0, which
are logged beside it.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rediffuse.config.rewards import Use
from rediffuse.config.schema import Scoring
from rediffuse.errors import RewardError, Status
from rediffuse.images import encoded, pictures, tensor
from rediffuse.processes.threads import Caller
from rediffuse.scoring.judging import judged, known_values, sample_bytes
from rediffuse.types import Judgement, Prompt, Reward, RewardFamily

JPEG_QUALITY = 60
"""The JPEG quality of a recompressed copy."""
SEEN = 0.9
"""The share of each side that a cropped copy keeps."""
ERROR = "error"


@dataclass(frozen=True)
class Term:
    """A reward of a run, and how it is used.

    Attributes:
        name: The reward's name in logs, unique in the run.
        use: Its weight, its share of the samples and its kind of copies.
        reward: The reward's options or, once loaded, the reward itself.
    """

    name: str
    use: Use
    reward: Any

    def loaded(self, device: str) -> "Term":
        """Returns the term with its model loaded. Raises ConfigError if that fails."""
        return replace(self, reward=load(self.reward, device))

    @property
    def pinned(self) -> Mapping[str, Any]:
        """Options that loading resolved, such as the commit of a branch."""
        return getattr(self.reward, "pinned", {})

    def judged(self, samples: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Scores samples (B, *S), or copies of them. Raises RewardError if the reward fails."""
        if self.use.copy:
            samples = COPIES[self.use.copy](samples)
        return judged(self.reward, samples, prompts, self.name)


def load(reward: Reward | RewardFamily, device: str) -> Reward:
    """Loads a reward's model, if it has one, and returns the reward that can be called."""
    return reward.load(device) if isinstance(reward, RewardFamily) else reward


def load_all(terms: Sequence[Term], device: str, caller: Caller) -> list[Term]:
    """Loads the rewards on the thread on which they will be called. A reward that several terms
    share is loaded once.
    """
    ready: dict[int, Term] = {}
    for term in terms:
        if id(term.reward) not in ready:
            ready[id(term.reward)] = caller.call(partial(term.loaded, device))
    return [replace(term, reward=ready[id(term.reward)].reward) for term in terms]


class Combination:
    """All rewards that score an epoch's samples, called as one.

    A single trained reward of weight 1 returns its own values and parts. Otherwise the values are
    the weighted sum, and each term's value is a part under its name. A reward of weight 0 adds its
    value as a part, which is NaN for samples outside its share. If it fails, a note says why.

    Attributes:
        trained: The terms that are trained on.
        is_sum: Whether values are a weighted sum.
    """

    def __init__(self, terms: Sequence[Term], options: Scoring) -> None:
        self.trained = [term for term in terms if term.use.is_trained]
        self._watched = [
            _Watched(term, options.untrained_seconds)
            for term in terms
            if not term.use.is_trained and term.use.scored_share
        ]
        self._options = options
        self.is_sum = len(self.trained) > 1 or self.trained[0].use.weight != 1

    @property
    def name(self) -> str:
        """The names of the trained rewards, joined by " + "."""
        return " + ".join(term.name for term in self.trained)

    @property
    def is_relative(self) -> bool:
        """Whether values are relative to their epoch, so that their mean over it is always 0."""
        return len(self.trained) > 1 and self._options.normalize

    def __call__(self, samples: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Scores samples (B, *S). The values of a sum are preliminary, since normalisation needs
        the whole epoch; see `combined`.
        """
        if self.is_sum:
            judgement = self._summed_up([each.judged(samples, prompts) for each in self.trained])
        else:
            judgement = self.trained[0].judged(samples, prompts)
        for watched in self._watched:
            judgement = watched.beside(judgement, samples, prompts)
        return judgement

    def combined(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted sum (N,) of an epoch's parts, (N,) each, normalised if configured;
        NaN for samples that lack a part.
        """
        known = {
            term.name: (each := parts[term.name]).where(each.isfinite(), torch.nan)
            for term in self.trained
        }
        if self.is_relative:
            known = {name: self._normalized(values) for name, values in known.items()}
        return self._weighted(known)

    def _summed_up(self, judgements: Sequence[Judgement]) -> Judgement:
        parts: dict[str, Tensor] = {}
        notes: dict[str, Sequence[str]] = {}
        statuses: list[Status] = ["ok"] * len(judgements[0].values)
        for term, judgement in zip(self.trained, judgements, strict=True):
            own = _prefixed(term.name, judgement)
            # a term's own value takes precedence over another one's part of that name
            parts = {**own.parts, **parts, term.name: known_values(judgement)}
            notes |= own.notes
            statuses = [_worse(*pair) for pair in zip(statuses, judgement.statuses, strict=True)]
        return Judgement(self._weighted(parts), parts, notes, statuses)

    def _weighted(self, parts: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([term.use.weight * parts[term.name] for term in self.trained]).sum(0)

    def _normalized(self, values: Tensor) -> Tensor:
        known, most = values[values.isfinite()], self._options.clip_at
        scaled = (values - known.mean()) / (known.std(correction=0) + 1e-8)
        return scaled if most is None else scaled.clamp(-most, most)


class _Watched:
    """A reward of weight 0 that scores a share of the samples. It has its own thread, because the
    run's is busy with the call that waits for it.
    """

    def __init__(self, term: Term, seconds: float) -> None:
        self._term, self._seconds = term, seconds
        self._caller = Caller()
        self._last: Future[Judgement] | None = None

    def beside(self, judgement: Judgement, samples: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Adds its scores of the samples that are in its share and have a trained reward."""
        name, size = self._term.name, len(prompts)
        values = torch.full((size,), torch.nan, dtype=torch.float64)
        rows = rows_in_share(samples, self._term.use.scored_share)
        rows = [i for i in rows if judgement.statuses[i] == "ok"]
        parts, notes = {name: values}, {}
        try:
            own = self._judged(samples[rows], [prompts[i] for i in rows]) if rows else None
        except (RewardError, TimeoutError) as error:
            notes = {f"{name}_{ERROR}": [str(error) * (i in rows) for i in range(size)]}
        else:
            if own is not None:
                values[rows] = known_values(own)
                spread = _prefixed(name, own)
                for part, each in spread.parts.items():
                    parts[part] = torch.full_like(values, torch.nan)
                    parts[part][rows] = each
                for note, texts in spread.notes.items():
                    said = dict(zip(rows, texts, strict=True))
                    notes[note] = [said.get(i, "") for i in range(size)]
        return replace(
            judgement, parts={**parts, **judgement.parts}, notes={**notes, **judgement.notes}
        )

    def _judged(self, samples: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Scores the samples on its thread. Raises RewardError if the reward fails, TimeoutError if
        it is late.
        """
        if self._last and not self._last.done():
            raise TimeoutError(f"{self._term.name} is still busy with an earlier batch.")
        self._last = self._caller.submit(lambda: self._term.judged(samples, prompts))
        try:
            return self._last.result(self._seconds)
        except TimeoutError:
            raise TimeoutError(
                f"{self._term.name} took more than {self._seconds:g} seconds"
                " (scoring.untrained_seconds)."
            ) from None


def _prefixed(name: str, judgement: Judgement) -> Judgement:
    """Prefixes the names of parts and notes with that of their term."""
    return replace(
        judgement,
        parts={f"{name}_{part}": values for part, values in judgement.parts.items()},
        notes={f"{name}_{note}": texts for note, texts in judgement.notes.items()},
    )


def _worse(status: Status, other: Status) -> Status:
    """Combines the statuses of two terms. Samples that timed out in one are scored again by all."""
    return "timeout" if "timeout" in (status, other) else other if status == "ok" else status


def rows_in_share(samples: Tensor, share: float) -> list[int]:
    """Returns the rows of samples (B, *S) that are in a share, in [0, 1]. It depends on the
    sample's SHA-256 only, not on the batch.
    """
    digests = [hashlib.sha256(each).digest()[:8] for each in sample_bytes(samples)]
    return [i for i, digest in enumerate(digests) if int.from_bytes(digest, "big") < share * 2**64]


def recompressed(images: Tensor) -> Tensor:
    """Returns images (B, 3, H, W) in [0, 1] after JPEG compression with quality 60."""
    files = [io.BytesIO(encoded(picture, JPEG_QUALITY)) for picture in pictures(images)]
    return torch.stack([tensor(Image.open(file)) for file in files]).to(images)


def cropped(images: Tensor) -> Tensor:
    """Returns the central 90 % of each side of images (B, 3, H, W), resized to their size."""
    height, width = images.shape[-2:]
    rows, columns = (max(1, round(SEEN * side)) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = images[..., top : top + rows, left : left + columns]
    return F.interpolate(middle, (height, width), mode="bilinear")


COPIES = {"recompressed": recompressed, "cropped": cropped}
