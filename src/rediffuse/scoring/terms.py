"""The rewards of a run as one: the weighted sum that is trained on, and rewards of weight 0, which
are logged beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rediffuse.config.rewards import Use, free
from rediffuse.config.schema import Scoring
from rediffuse.deferred import torch
from rediffuse.errors import ConfigError, RediffuseError, Status, quoted
from rediffuse.processes.threads import Caller
from rediffuse.scoring import cures
from rediffuse.scoring.copies import COPIES
from rediffuse.scoring.judging import judged, known_values
from rediffuse.types import Judgement, Prompt, Reward, RewardFamily

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Term:
    """A reward of a run, and how it is used.

    Attributes:
        name: The reward's name in logs, unique in the run.
        use: Its weight, its share of the samples and its kind of copies.
        reward: The reward's options or, once loaded, the reward itself.
        caller: The thread on which the reward is loaded and always called.
    """

    name: str
    use: Use
    reward: Any
    caller: Caller = field(default_factory=Caller, repr=False, compare=False)

    def loaded(self, device: str) -> Term:
        """Returns the term with its model loaded. Raises ConfigError if that fails."""
        if callable(self.reward):  # without a model
            return self
        reward = self.caller.call(partial(load_reward, self.reward, device, self.name))
        return replace(self, reward=reward)

    @property
    def pinned(self) -> Mapping[str, Any]:
        """Options that loading resolved, such as the commit of a branch."""
        return getattr(self.reward, "pinned", {})

    def judged(self, samples: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Scores samples (B, *S), or copies of them. Raises RewardError if the reward fails."""

        def of_copies(samples: Tensor, prompts: Sequence[Prompt]) -> Tensor | Judgement:
            scored: Tensor | Judgement = self.reward(COPIES[self.use.copy or ""](samples), prompts)
            return scored

        return judged(of_copies if self.use.copy else self.reward, samples, prompts, self.name)


def load_reward(reward: Reward | RewardFamily, device: str, name: str = "") -> Reward:
    """Loads a reward's model, if it has one, and returns the reward that can be called.

    Raises:
        ConfigError: If the model cannot be loaded, or `load` returns nothing that scores.
    """
    if callable(reward) or not isinstance(reward, RewardFamily):
        return reward
    try:
        loaded = reward.load(device)
    except RediffuseError:
        raise
    except Exception as error:  # it may be anyone's code
        raise ConfigError(
            f"reward.name: {quoted(name)} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    cure = "it is not callable." if not callable(loaded) else cures.of_signature(loaded)
    if cure:
        raise ConfigError(
            f"reward.name: {quoted(name)}: load(device) must return the function that scores"
            f" (samples, prompts); it returned {type(loaded).__name__}: {cure}"
        )
    return loaded


def load_all(terms: Sequence[Term], device: str, caller: Caller) -> list[Term]:
    """Loads the rewards, one that several terms share once.

    Args:
        terms: Those that are trained on stand anywhere among them.
        device: Where models are loaded.
        caller: The thread on which the trained rewards are called. Each of the others has a thread
            of its own, unless it is one of those.
    """
    by_thread = sorted(terms, key=lambda term: not term.use.is_trained)
    ready: dict[int, Term] = {}
    for term in by_thread:
        if id(term.reward) not in ready:
            own = replace(term, caller=caller) if term.use.is_trained else term
            ready[id(term.reward)] = own.loaded(device)
    found = [(term, ready[id(term.reward)]) for term in terms]
    return [replace(term, reward=its.reward, caller=its.caller) for term, its in found]


class Combination:
    """The rewards that are trained on, called as one.

    A single one of weight 1 returns its own values and parts. Otherwise the values are the weighted
    sum, and each term's value is a part under its name.

    Attributes:
        trained: The terms that are trained on.
        is_sum: Whether values are a weighted sum.
    """

    def __init__(self, terms: Sequence[Term], options: Scoring) -> None:
        self.trained = [term for term in terms if term.use.is_trained]
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
        if not self.is_sum:
            return self.trained[0].judged(samples, prompts)
        return self._summed_up([each.judged(samples, prompts) for each in self.trained])

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
        both = list(zip(self.trained, judgements, strict=True))
        parts: dict[str, Tensor] = {term.name: known_values(each) for term, each in both}
        notes: dict[str, Sequence[str]] = {}
        taken, taken_by_notes = dict.fromkeys(parts, 1), dict[str, int]()
        statuses: list[Status] = ["ok"] * len(judgements[0].values)
        for term, own in both:
            for part, values in own.parts.items():
                parts[free(f"{term.name}_{part}", taken)] = values
            for note, texts in own.notes.items():
                notes[free(f"{term.name}_{note}", taken_by_notes)] = texts
            statuses = [_worse(*pair) for pair in zip(statuses, own.statuses, strict=True)]
        return Judgement(self._weighted(parts), parts, notes, statuses)

    def _weighted(self, parts: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([term.use.weight * parts[term.name] for term in self.trained]).sum(0)

    def _normalized(self, values: Tensor) -> Tensor:
        known, most = values[values.isfinite()], self._options.clip_at
        scaled = (values - known.mean()) / (known.std(correction=0) + 1e-8)
        return scaled if most is None else scaled.clamp(-most, most)


def _worse(status: Status, other: Status) -> Status:
    """Combines the statuses of two terms. Samples that timed out in one are scored again by all."""
    return "timeout" if "timeout" in (status, other) else other if status == "ok" else status
