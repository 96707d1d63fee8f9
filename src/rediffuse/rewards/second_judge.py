"""A second judge, asked about a share of the samples and never trained on: where the first rises
alone, it is being fooled.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor

from rediffuse.config.schema import Positive
from rediffuse.errors import ConfigError, RewardError
from rediffuse.images import encoded, pictures, pixels, tensor
from rediffuse.processes.threads import Caller
from rediffuse.rewards.weighted_sum import Term
from rediffuse.scoring.judging import judged
from rediffuse.types import Combines, Judgement, NeedsLoading, Prompt

__all__ = ["SecondJudge"]

PART = "second_opinion"
"""Not the name of this file, which is the whole reward's in metrics.jsonl."""
JPEG_QUALITY = 60
SEEN = 0.9
"""Of each side, in a cropped copy."""


@dataclass(frozen=True)
class SecondJudge:
    """rewards: [{name: alignment}, {name: clip_score}]: the first is the reward, with all its
    parts; what the second says is the part `second_opinion`, NaN where it was not asked. Or one
    reward, which then is asked about a copy of the picture as well.

    copy: recompressed, through a JPEG file of quality 60; cropped, its middle nine tenths, as large
    as it was.
    share: of the samples that the second is asked about; the picture itself decides, the same
    whatever the batch.
    deadline_seconds: for the second, a batch. Where it fails, or is late, the part is NaN and the
    note `second_opinion_error` says why; it is not asked again, and no run stops for it.
    """

    rewards: tuple[Term, ...] = ()
    copy: Literal["recompressed", "cropped"] | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    deadline_seconds: Positive = 60.0
    _running: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)
    judges = "image"

    def __post_init__(self) -> None:
        if len(self.rewards) != (1 if self.copy else 2):
            raise ConfigError(
                "reward.rewards: two, as in [{name: alignment}, {name: clip_score}]; or one, and"
                " copy: recompressed or cropped."
            )
        for number, term in enumerate(self.rewards):
            if term.weight != 1:
                raise ConfigError(
                    f"reward.rewards.{number}.weight: nothing is added here; the first is the"
                    " reward. Leave it out."
                )
            if isinstance(term.reward, Combines):
                raise ConfigError(
                    f"reward.rewards.{number}: {term.name} needs a whole epoch; name a reward of"
                    " single samples."
                )

    def prepare(self, device: str) -> None:
        for term in self.rewards:
            if isinstance(term.reward, NeedsLoading):
                term.reward.prepare(device)

    def __call__(self, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        first = judged(self.rewards[0].reward, images, prompts)
        values = torch.full((len(prompts),), torch.nan, dtype=torch.float64)
        errors = [""] * len(prompts)
        rows = [i for i in rows_to_ask(images, self.share) if first.statuses[i] == "ok"]
        if rows:
            try:
                values[rows] = known_values(self._second(images[rows], [prompts[i] for i in rows]))
            except (RewardError, TimeoutError) as error:
                errors = [str(error) if i in rows else "" for i in range(len(prompts))]
        notes = {f"{PART}_error": errors} if any(errors) else {}
        return replace(
            first,
            parts={**first.parts, free(PART, first.parts): values},
            notes={**notes, **first.notes},
        )

    def _second(self, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
        """Raises RewardError and TimeoutError."""
        last = self._running.get("call")
        if last and not last.done():
            raise TimeoutError("The second judge is still busy with an earlier batch.")
        # beside the run's own, which is busy with this very call
        caller = self._running.setdefault("caller", Caller())
        call = self._running["call"] = caller.submit(lambda: judged(self._opinion, images, prompts))
        try:
            judgement: Judgement = call.result(self.deadline_seconds)
            return judgement
        except TimeoutError:
            raise TimeoutError(
                f"The second judge took more than {self.deadline_seconds:g} seconds."
            ) from None

    def _opinion(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor | Judgement:
        seen = (
            {"recompressed": recompressed, "cropped": cropped}[self.copy](images)
            if self.copy
            else images
        )
        return judged(self.rewards[-1].reward, seen, prompts)


def rows_to_ask(images: Tensor, share: float) -> list[int]:
    """Which of images (B, 3, H, W): those whose 8-bit pixels' SHA-256 is among the lowest."""
    digests = [hashlib.sha256(each.tobytes()).digest() for each in pixels(images)]
    return [
        i for i, digest in enumerate(digests) if int.from_bytes(digest[:8], "big") < share * 2**64
    ]


def known_values(judgement: Judgement) -> Tensor:
    """(B,), NaN where its status is not ok."""
    return judgement.values.where(
        torch.tensor([status == "ok" for status in judgement.statuses]), torch.nan
    )


def free(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or with the first number from 2 on that makes it nobody's."""
    return next(
        each for each in chain([name], (f"{name}_{n}" for n in count(2))) if each not in taken
    )


def recompressed(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1], through JPEG."""
    files = [io.BytesIO(encoded(picture, JPEG_QUALITY)) for picture in pictures(images)]
    return torch.stack([tensor(Image.open(file)) for file in files]).to(images)


def cropped(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1], from a little closer."""
    height, width = images.shape[-2:]
    rows, columns = (max(1, round(SEEN * side)) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = images[..., top : top + rows, left : left + columns]
    return F.interpolate(middle, (height, width), mode="bilinear")
