"""Ways to choose n of a list of prompts, and the words they share."""

from collections.abc import Mapping, Sequence

import torch

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
    """Independent draws, as likely as their weights; or, balanced, every prompt as often as every
    other, give or take one.
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
    """A prompt whose metadata holds questions and, in their order, the answers; answers: by
    question.
    """
    return Prompt(text, {"questions": list(answers), "answers": list(answers.values())})


def nouns(names: Sequence[str], *, article: bool) -> list[Prompt]:
    """With its article, "a cat", or bare."""
    return [Prompt(with_article(name) if article else name) for name in names]


def doing(names: Sequence[str], deeds: Sequence[str]) -> list[Prompt]:
    """Each at each, "a cat riding a bike"; where the deed is "", "a cat"."""
    return [Prompt(f"{with_article(name)} {deed}".strip()) for name in names for deed in deeds]
