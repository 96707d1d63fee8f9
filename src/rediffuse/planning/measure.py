"""Times a few passes of a loaded model at several rows (`--measure`)."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from rediffuse.config.schema import Config
from rediffuse.costs.rows import MOST_ROWS
from rediffuse.lookup.parts import Parts
from rediffuse.maths import noise
from rediffuse.planning.timings import Timings
from rediffuse.policy import DiffusionPolicy
from rediffuse.types import Prompt

KINDS = ("sampling", "decoding", "training")
SECONDS = 10.0
"""For all kinds of passes together; a pass that has begun is ended."""


def measured(config: Config, parts: Parts, device: str, most: Mapping[str, int]) -> Timings:
    """Loads the model, times passes of it, and frees it again.

    Args:
        config: The run's configuration.
        parts: Its components.
        device: Where the model is placed.
        most: The most rows of each kind of pass that are useful.
    """
    denoiser = parts.family.load(device, config.seed)
    policy = DiffusionPolicy(denoiser, parts.sampler.bind(denoiser.schedule))
    prompts = parts.prompts.draw(MOST_ROWS, noise.generator(config.seed, 0, "prompts"))
    with as_in_a_lane(device):
        found = {
            kind: timed(policy, kind, prompts, min(most[kind], MOST_ROWS), SECONDS / len(KINDS))
            for kind in KINDS
        }
    del denoiser, policy
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return Timings(found)


@contextmanager
def as_in_a_lane(device: str) -> Iterator[None]:
    """Inside, a pass on a CPU has one thread, as in a run, whose lanes are one for each core."""
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def timed(
    policy: DiffusionPolicy, kind: str, prompts: Sequence[Prompt], most: int, seconds: float
) -> dict[int, float]:
    """Returns the seconds of a pass by its rows: 1, 2, 4 and so on, as long as time and memory
    last.

    Args:
        policy: The policy.
        kind: A member of KINDS.
        prompts: At least `most` prompts.
        most: The most rows.
        seconds: When to begin no further pass.
    """
    found: dict[int, float] = {}
    ends, rows = time.perf_counter() + seconds, 1
    while rows <= most and (not found or time.perf_counter() < ends):
        try:
            work = passes(policy, kind, prompts[:rows])
            _clocked(work, policy)  # the first pass of a shape also allocates and chooses kernels
            found[rows] = min(_clocked(work, policy) for _ in range(2))
        except torch.OutOfMemoryError:
            break
        rows *= 2
    return found


def passes(policy: DiffusionPolicy, kind: str, prompts: Sequence[Prompt]) -> Callable[[], Any]:
    """Returns one pass of a kind, for a row of each prompt."""
    denoiser = policy.denoiser
    state = torch.randn(
        len(prompts), *denoiser.latent_shape, generator=torch.Generator().manual_seed(0)
    ).to(denoiser.device)
    step = torch.zeros(len(prompts), dtype=torch.int64)
    if kind == "decoding":
        return torch.no_grad()(lambda: denoiser.decode(state, prompts))
    with torch.no_grad():
        conditioning = denoiser.encode(prompts)
    if kind == "sampling":
        return torch.no_grad()(lambda: policy.act(state, step, conditioning).mean)
    parameters = list(denoiser.parameters().values())

    def train() -> Any:
        with torch.enable_grad():
            total = policy.act(state, step, conditioning).log_prob(state).sum()
            return torch.autograd.grad(total, parameters, allow_unused=True)

    return train


def _clocked(work: Callable[[], Any], policy: DiffusionPolicy) -> float:
    """On a CPU in its own seconds, since other processes may share it."""
    on_cuda = policy.denoiser.device.type == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
    clock = time.perf_counter if on_cuda else time.process_time
    began = clock()
    work()
    if on_cuda:
        torch.cuda.synchronize()
    return clock() - began
