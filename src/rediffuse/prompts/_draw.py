"""Drawing prompts from a list, and the construction of prompts that several sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rediffuse.deferred import torch
from rediffuse.english import with_article
from rediffuse.types import Prompt


def pick(
    prompts: Sequence[Prompt],
    n: int,
    generator: torch.Generator,
    *,
    balanced: bool = False,
    weights: Sequence[float] | None = None,
) -> list[Prompt]:
    """Draws n prompts.

    Args:
        prompts: The prompts to draw from.
        n: The number of prompts to draw.
        generator: Makes the draws.
        balanced: Whether all prompts are drawn equally often, up to a difference of one, instead of
            independently.
        weights: The relative probability of each prompt in independent draws; None: equal.
    """
    if balanced:
        rounds = -(-n // len(prompts))
        order = torch.cat(
            [torch.randperm(len(prompts), generator=generator) for _ in range(rounds)]
        )[:n]
    elif weights is not None:
        order = torch.multinomial(
            torch.tensor(weights, dtype=torch.float64), n, replacement=True, generator=generator
        )
    else:
        order = torch.randint(len(prompts), (n,), generator=generator)
    return [prompts[i] for i in order.tolist()]


def with_questions(text: str, answers: Mapping[str, str]) -> Prompt:
    """Returns a prompt whose metadata holds "questions" and, in the same order, "answers".

    Args:
        text: The prompt's text.
        answers: The answer to each question.
    """
    return Prompt(text, {"questions": list(answers), "answers": list(answers.values())})


def nouns(names: Sequence[str], *, article: bool) -> list[Prompt]:
    """Returns a prompt for each name, with an article ("a cat") or without ("cat")."""
    return [Prompt(with_article(name) if article else name) for name in names]


def doing(names: Sequence[str], deeds: Sequence[str]) -> list[Prompt]:
    """Returns a prompt for each pair of name and activity, "a cat riding a bike"; an empty activity
    gives "a cat".
    """
    return [Prompt(f"{with_article(name)} {deed}".strip()) for name in names for deed in deeds]
