"""Rewards of weight 0 that score a share of an epoch's samples, beside the trained ones."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rediffuse.config.rewards import free
from rediffuse.errors import RewardError
from rediffuse.scoring.judging import known_values, sample_bytes
from rediffuse.scoring.terms import Term
from rediffuse.types import Judgement, Prompt

ERROR = "error"


class Watched:
    """A reward of weight 0 that scores a share of the samples, after they have a trained reward.

    Its value is a part under its name. If it fails or is late, a note says why; it is not retried,
    and never changes a value or a status of the trained reward.

    Args:
        term: The reward, loaded.
        seconds: How long a batch of samples waits for it.
    """

    def __init__(self, term: Term, seconds: float) -> None:
        self._term, self._seconds = term, seconds
        self._last: Future[Judgement] | None = None

    def beside(self, judgement: Judgement, samples: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Adds its scores of the samples that are in its share and have a trained reward.

        Args:
            judgement: Of the trained reward.
            samples: Shape (B, *S).
        """
        name, size = self._term.name, len(prompts)
        values = torch.full((size,), torch.nan, dtype=torch.float64)
        parts: dict[str, Tensor] = {name: values}
        notes: dict[str, Sequence[str]] = {}
        rows = rows_in_share(samples, self._term.use.scored_share)
        rows = [i for i in rows if judgement.statuses[i] == "ok"]
        try:
            own = self._judged(samples[rows], [prompts[i] for i in rows]) if rows else None
        except (RewardError, TimeoutError) as error:
            notes[f"{name}_{ERROR}"] = [str(error) * (i in rows) for i in range(size)]
        else:
            if own is not None:
                values[rows] = known_values(own)
                parts |= {f"{name}_{k}": _spread(v, rows, size) for k, v in own.parts.items()}
                notes |= {
                    f"{name}_{k}": [dict(zip(rows, v, strict=True)).get(i, "") for i in range(size)]
                    for k, v in own.notes.items()
                }
        return replace(
            judgement,
            parts=with_free_names(parts, judgement.parts),
            notes=with_free_names(notes, judgement.notes),
        )

    def _judged(self, samples: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Scores the samples on the reward's thread. Raises RewardError if the reward fails,
        TimeoutError if it is late.
        """
        if self._last and not self._last.done():
            raise TimeoutError(f"{self._term.name} is still busy with an earlier batch.")
        self._last = self._term.caller.submit(lambda: self._term.judged(samples, prompts))
        try:
            return self._last.result(self._seconds)
        except TimeoutError:
            raise TimeoutError(
                f"{self._term.name} took more than {self._seconds:g} seconds"
                " (scoring.untrained_seconds)."
            ) from None


def _spread(values: Tensor, rows: Sequence[int], size: int) -> Tensor:
    """Returns the values at their rows of `size`, NaN at others."""
    spread = torch.full((size,), torch.nan, dtype=torch.float64)
    spread[list(rows)] = values
    return spread


def with_free_names(first: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Returns both, with a number behind those names of the second that the first has."""
    taken = dict.fromkeys(first, 1)
    return {**first, **{free(name, taken): each for name, each in others.items()}}


def rows_in_share(samples: Tensor, share: float) -> list[int]:
    """Returns the rows of samples (B, *S) that are in a share, in [0, 1]. It depends on the
    sample's SHA-256 only, not on the batch.
    """
    digests = [hashlib.sha256(each).digest()[:8] for each in sample_bytes(samples)]
    return [i for i, digest in enumerate(digests) if int.from_bytes(digest, "big") < share * 2**64]
