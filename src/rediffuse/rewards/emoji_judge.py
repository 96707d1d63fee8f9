"""The confidence of a small packaged classifier in the prompt's animal, count and activity, for the
embedded model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rediffuse.deferred import torch
from rediffuse.rewards._emoji import NONE, Judge
from rediffuse.rewards._loading import LoadedWithFeatures
from rediffuse.rewards._words import holds
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EmojiJudge"]


@dataclass(frozen=True)
class EmojiJudges:
    """The models of the emoji judge.

    Attributes:
        judge: The judge that gives the value.
        held_out: The held-out judge, of another architecture.
    """

    judge: Judge
    held_out: Judge

    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D), on the CPU, of images (B, 3, H, W) in [0, 1]."""
        return self.judge.features(images)


@dataclass(frozen=True)
class EmojiJudge:
    """The packaged judge of the embedded model's images.

    The part `right` of a sample is 1 if the judge recognises everything that the prompt names, else
    0. The part `held_out_right` is the same for a second judge, of another architecture, which is
    never trained on. If only `right` rises, the policy exploits the first judge.

    Attributes:
        score: "log_probability" sums the log-probabilities of what the prompt names; it is smooth,
            so that few samples suffice to learn. "match" is the share of it that is recognised.
        floor: The lower bound of each log-probability.
        judge: "trained" is the judge to train with. "held_out" is the second judge alone, as a
            held-out reward of runs with another reward.
    """

    score: Literal["log_probability", "match"] = "log_probability"
    floor: Annotated[float, Field(lt=0, allow_inf_nan=False)] = -7.0
    judge: Literal["trained", "held_out"] = "trained"
    judges = "image"

    @property
    def differentiable(self) -> bool:
        """Whether values are differentiable with respect to the images; matches are not."""
        return self.score == "log_probability"

    def load(self, device: str) -> LoadedWithFeatures[EmojiJudges]:
        held_out = Judge.load("held_out", device)
        judge = held_out if self.judge == "held_out" else Judge.load(self.judge, device)
        return LoadedWithFeatures(EmojiJudges(judge, held_out), self.scores)

    def scores(self, model: EmojiJudges, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Raises ValueError for a prompt that names nothing the judge knows."""
        judge = model.judge
        log_probs = judge(images)
        asked, matches = asked_for(judge, prompts), named(judge, log_probs, prompts)
        parts = {"right": matches.nan_to_num(1.0).amin(1)}
        if self.score == "match":
            values = matches.nanmean(1)
        else:
            each = [
                log_probs[a].gather(1, asked[:, [i]].clamp(min=0)).squeeze(1)
                for i, a in enumerate(judge.labels)
            ]
            values = (torch.stack(each, 1).clamp(min=self.floor) * (asked >= 0)).sum(1)
        if self.judge == "trained":
            seen = model.held_out(images)
            parts["held_out_right"] = named(model.held_out, seen, prompts).nan_to_num(1.0).amin(1)
        return Judgement(values, parts, {"answer": judge.captions(log_probs)})


def named(judge: Judge, log_probs: dict[str, Tensor], prompts: Sequence[Prompt]) -> Tensor:
    """Returns which attributes of the prompts the judge recognises.

    Args:
        judge: The judge.
        log_probs: Its log-probabilities (B, labels) of each attribute.
        prompts: B prompts.

    Returns:
        Shape (B, attributes): 1 if the most likely label is the one that the prompt names, 0 if it
        is another, NaN if the prompt names none.
    """
    asked = asked_for(judge, prompts)
    best = torch.stack([log_probs[attribute].argmax(1) for attribute in judge.labels], 1)
    return (best == asked).double().where(asked >= 0, torch.nan)


def asked_for(judge: Judge, prompts: Sequence[Prompt]) -> Tensor:
    """Returns the number of the label that each prompt names, shape (B, attributes); -1 if it names
    none. Raises ValueError for a prompt without any.
    """
    labels = tuple(tuple(names) for names in judge.labels.values())
    return torch.tensor([_asked_for(prompt.text, labels) for prompt in prompts])


@cache
def _asked_for(text: str, labels: tuple[tuple[str, ...], ...]) -> list[int]:
    found = [
        next((i for i, name in enumerate(names) if name != NONE and holds(text, name)), -1)
        for names in labels
    ]
    if max(found) < 0:
        raise ValueError(
            f"the emoji judge cannot score {text!r}; it knows"
            f" {', '.join(n for each in labels for n in each)}"
        )
    return found
