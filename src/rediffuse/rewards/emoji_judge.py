"""How surely a small judge that ships inside sees the prompt's animal, count and activity in the
embedded model's pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rediffuse.rewards._emoji import NONE, Judge
from rediffuse.rewards._loading import LoadedWithFeatures
from rediffuse.rewards._words import holds
from rediffuse.types import Judgement, Prompt

__all__ = ["EmojiJudge"]


@dataclass(frozen=True)
class Judges:
    """The judge that gives the value, and the one of another architecture."""

    judge: Judge
    held_out: Judge

    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D), on the host, of images (B, 3, H, W) in [0, 1]."""
        return self.judge.features(images)


@dataclass(frozen=True)
class EmojiJudge:
    """score: log_probability, summed over what the prompt asks for: smooth, which is what learns
    from few samples; or match, the share of it that the judge names.

    floor: where each log-probability ends.
    judge: trained is asked for the reward. A second one, of another architecture, is asked as well,
    and never trained on: `held_out_right` beside `right`, each the share of samples in which all
    that was asked for is named, tells improvement from a judge that was fooled. held_out is that
    second one by itself, to look at another reward's run with.
    """

    score: Literal["log_probability", "match"] = "log_probability"
    floor: Annotated[float, Field(lt=0, allow_inf_nan=False)] = -7.0
    judge: Literal["trained", "held_out"] = "trained"
    judges = "image"

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach the images: not through which label is the likeliest."""
        return self.score == "log_probability"

    def load(self, device: str) -> LoadedWithFeatures[Judges]:
        held_out = Judge.load("held_out", device)
        judge = held_out if self.judge == "held_out" else Judge.load(self.judge, device)
        return LoadedWithFeatures(Judges(judge, held_out), self.scores)

    def scores(self, model: Judges, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Raises ValueError for a prompt that asks for nothing the judge knows."""
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
    """(B, attributes): 1 where the likeliest is what the prompt asks for, 0 where it is not, NaN
    where nothing is asked.
    """
    asked = asked_for(judge, prompts)
    best = torch.stack([log_probs[attribute].argmax(1) for attribute in judge.labels], 1)
    return (best == asked).double().where(asked >= 0, torch.nan)


def asked_for(judge: Judge, prompts: Sequence[Prompt]) -> Tensor:
    """(B, attributes): the number of the label that each prompt's words name; -1 where they name
    none.
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
            f"the emoji judge knows nothing of {text!r}; it knows"
            f" {', '.join(n for each in labels for n in each)}"
        )
    return found
