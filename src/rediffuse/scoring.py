"""Rewards with their status: computed beside the sampling, checked, masked where they cannot be used."""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rediffuse.errors import RewardError
from rediffuse.rollout import joined
from rediffuse.types import Judgement, Metrics, Prompt, Reward, Rollout

POLL_SECONDS = 0.2
MAX_WAITING = 128


@dataclass(frozen=True)
class Scores:
    """rewards: (B,) float64, NaN or infinite where there is none to learn from   image_hashes: (B,)   seconds: in the reward.

    parts: (B,) float64 each, by name   notes: B texts each, by name
    """

    rewards: Tensor
    image_hashes: Tensor
    seconds: float
    parts: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def score(
    reward: Reward, rollouts: Iterable[Rollout], num_samples: int, stop_if_asked: Callable[[], None]
) -> tuple[Rollout, Scores]:
    """Each rollout's rewards are computed while the next is sampled; all, of `num_samples`, come back as one, without the images.

    At most MAX_WAITING images wait for their rewards, or one rollout's: then the sampling waits. Where a reward fails or
    `stop_if_asked` raises, those not yet begun are never computed.
    """
    rewards, hashes = (torch.empty(num_samples, dtype=torch.float64) for _ in range(2))
    parts: dict[str, Tensor] = {}
    notes: dict[str, list[str]] = {}
    seconds = 0.0
    waiting: dict[Future[Scores], range] = {}

    def until_waiting(most: int) -> None:
        nonlocal seconds
        while True:
            for future in [each for each in waiting if each.done()]:
                place, scores = waiting.pop(future), future.result()  # a reward that fails is told now, not when all is sampled
                here = slice(place.start, place.stop)
                rewards[here], hashes[here] = scores.rewards, scores.image_hashes
                for name, values in scores.parts.items():
                    parts.setdefault(name, torch.full_like(rewards, torch.nan))[here] = values
                for name, texts in scores.notes.items():
                    notes.setdefault(name, [""] * num_samples)[here] = texts
                seconds += scores.seconds
            if sum(map(len, waiting.values())) <= most or not waiting:
                return
            wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
            stop_if_asked()

    def handed_over() -> Iterator[Rollout]:
        begin = 0
        for part in rollouts:
            end = begin + len(part.prompts)
            until_waiting(MAX_WAITING - len(part.prompts))
            waiting[worker.submit(_scored, reward, part)] = range(begin, end)
            begin = end
            yield replace(part, images=part.images[:0].clone())

    worker = ThreadPoolExecutor(1)
    try:
        rollout = joined(handed_over(), num_samples)
        until_waiting(0)
    finally:
        worker.shutdown(wait=False, cancel_futures=True)
    return rollout, Scores(rewards, hashes, seconds, parts, notes)


def judged(reward: Reward, images: Tensor, prompts: Sequence[Prompt]) -> Judgement:
    """Its values and parts (B,) float64. Raises RewardError, naming the reward, unless it gives one number per image."""
    name = name_of(reward)
    try:
        given = reward(images.clone(), prompts)
    except RewardError:
        raise
    except Exception as error:
        raise RewardError(
            f"The reward {name} failed on a batch of {len(prompts)} images: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(given, Judgement):
        return Judgement(_numbers(name, given, len(prompts)))
    for note, texts in given.notes.items():
        if isinstance(texts, str) or len(texts) != len(prompts) or not all(isinstance(text, str) for text in texts):
            raise RewardError(
                f"The reward {name} must note one text per image, {len(prompts)}, as {note}; it noted {texts!r:.60}."
            )
    parts = {part: _numbers(f"{name}, {part}:", values, len(prompts)) for part, values in given.parts.items()}
    return Judgement(_numbers(name, given.values, len(prompts)), parts, given.notes)


def _numbers(name: str, given: Any, size: int) -> Tensor:
    try:
        values = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise RewardError(
            f"The reward {name} must give {size} numbers, one per image; it gave {type(given).__name__}."
        ) from error
    if values.shape != (size,):
        raise RewardError(
            f"The reward {name} must give one number per image, shape ({size},); it gave shape {tuple(values.shape)}."
        )
    return values


def name_of(reward: Callable[..., Any]) -> str:
    """As in a configuration: the file's name for a reward of the house, else that of the function or class."""
    room, _, file = type(reward).__module__.rpartition(".")
    return file if room == "rediffuse.rewards" else getattr(reward, "__name__", type(reward).__name__)


def refuse_too_few(ok: Tensor, max_failed: float) -> None:
    """ok: (N,) of the whole epoch."""
    failed = 1 - ok.double().mean().item()
    if failed > max_failed or not ok.any():
        raise RewardError(
            f"{(~ok).sum()} of {len(ok)} rewards of this epoch are not finite numbers; scoring.max_failed allows"
            f" a share of {max_failed:g}. The run is saved up to the epoch before: mend the reward, then resume."
        )


def summary(name: str, rewards: Tensor, parts: Mapping[str, Tensor]) -> Metrics:
    """Of an epoch's rewards (N,) and their parts (N,), the masked ones left out but counted."""
    valid = rewards[rewards.isfinite()]
    found = {part: values[values.isfinite()] for part, values in sorted(parts.items())}
    return {
        **{f"reward_{part}": values.mean().item() for part, values in found.items() if len(values)},
        f"reward_{name}": valid.mean().item(),  # first: a reward may be called "std"
        "reward_mean": valid.mean().item(),
        "reward_std": valid.std(correction=0).item(),
        "masked_rewards": len(rewards) - len(valid),
    }


Journal = list[dict[str, Any]]


def journal(epoch: int, prompts: Sequence[Prompt], scores: Scores) -> Journal:
    """A row for each sample of the epoch."""
    rows = []
    for index, (prompt, value, name) in enumerate(
        zip(prompts, scores.rewards.tolist(), scores.image_hashes.tolist(), strict=True)
    ):
        row = {
            "epoch": epoch,
            "index": index,
            "prompt": prompt.text,
            "reward": _finite(value),
            "status": "ok" if math.isfinite(value) else "non_finite",
            "attempts": 1,
            "image_hash": f"{int(name):012x}",
        }
        if scores.parts:
            row["parts"] = {part: _finite(values[index].item()) for part, values in scores.parts.items()}
        if scores.notes:
            row["notes"] = {note: texts[index] for note, texts in scores.notes.items()}
        rows.append(row)
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def image_hashes(images: Tensor) -> Tensor:
    """(B,) float64: 48 bits of the SHA-256 of each image's 8-bit pixels, which a double holds exactly."""
    pixels = (images * 255).round().to(torch.uint8)
    digests = [hashlib.sha256(each.numpy().tobytes()).digest()[:6] for each in pixels]
    return torch.tensor([int.from_bytes(digest, "big") for digest in digests], dtype=torch.float64)


def _scored(reward: Reward, part: Rollout) -> Scores:
    began = time.perf_counter()
    judgement = judged(reward, part.images, part.prompts)
    hashes = image_hashes(part.images)
    notes = {name: list(texts) for name, texts in judgement.notes.items()}
    return Scores(judgement.values, hashes, time.perf_counter() - began, dict(judgement.parts), notes)
