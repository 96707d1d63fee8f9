"""The denoising process: from noise to latents, with the likelihood of each random step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rediffuse.faults import Check, magnitude, traced
from rediffuse.maths import noise
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.memory import RowLimits, even_parts
from rediffuse.types import FirstUpdate, HasPrecision, HasSampleGradients, Prompt, Trajectory

Key = tuple[int | str, ...]


@dataclass(frozen=True)
class Draws:
    """The samples to generate.

    Attributes:
        indices: The number of each sample in the epoch.
        prompts: The prompt of each sample.
        key: The random key of the noise; each sample's index is appended to it.
    """

    indices: Sequence[int]
    prompts: Sequence[Prompt]
    key: Key

    def batches(self, size: int) -> list["Draws"]:
        """Splits the draws into the fewest parts of at most `size` samples, whose sizes differ by
        at most one.
        """
        parts = even_parts(torch.arange(len(self.indices)), size)
        return [self.only(part.tolist()) for part in parts]

    def only(self, rows: Sequence[int]) -> "Draws":
        """Returns some of the draws."""
        indices, prompts = [self.indices[row] for row in rows], [self.prompts[row] for row in rows]
        return Draws(indices, prompts, self.key)


def denoise(
    policy: DiffusionPolicy,
    draws: Draws,
    at_each_step: Callable[[], None] = lambda: None,
    limits: RowLimits | None = None,
    first: FirstUpdate | None = None,
    *,
    keep_means: bool = False,
) -> Trajectory:
    """Runs the denoising process without decoding the latents. All samples advance together.

    Each sample's noise comes from its own generator, so it does not depend on the batch. The faults
    cover the text encoder, the network and the latents.

    Args:
        policy: The policy to sample from.
        draws: The samples to generate.
        at_each_step: Called before each denoising step; may raise to stop sampling.
        limits: How many rows a pass takes; None: all.
        first: The first update, whose gradients are computed on the way. If no other update
            follows, the trajectory holds only one of its random steps and the final latents.
        keep_means: Whether the trajectory holds the means of its random steps.
    """
    at_each_step()
    limits = limits or RowLimits.of(lambda _: len(draws.indices))
    walk = _Walk(policy, draws, limits, first, keep_means=keep_means)
    for step, noisy in enumerate(policy.sampler.noisy):
        at_each_step()
        walk.advance(step, noisy=noisy)
    return walk.trajectory()


def precision_of(policy: DiffusionPolicy) -> str:
    """Returns the precision of the model's networks as "in bf16"; empty if it is unknown."""
    return f"in {policy.denoiser.precision}" if isinstance(policy.denoiser, HasPrecision) else ""


class _Walk:
    """Samples on their way from noise to latents.

    Attributes:
        state: Shape (B, *L).
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        draws: Draws,
        limits: RowLimits,
        first: FirstUpdate | None,
        *,
        keep_means: bool,
    ) -> None:
        self._policy, self._draws, self._limits = policy, draws, limits
        self._first = first if first is not None and first.key == draws.key else None
        self._conditioning = policy.denoiser.encode(draws.prompts)
        self._generators = [noise.generator(*draws.key, index) for index in draws.indices]
        self._kept = _kept_states(policy.sampler.noisy, self._first)
        self.state = self._fresh()
        self._path = [self.state] if 0 in self._kept else []
        self._log_probs: list[Tensor] = []
        self._means: list[Tensor] | None = [] if keep_means else None
        self._checks: list[Check] = [
            ("text encoder", precision_of(policy), magnitude(each).to(self.state.device))
            for each in self._conditioning.values()
            if each.is_floating_point()
        ]

    def advance(self, step: int, *, noisy: bool) -> None:
        """Makes one denoising step with all samples."""
        drawn = self._fresh() if noisy else None
        with_scores = self._first.rows(self._draws.indices, step) if self._first else []
        scored = torch.zeros(len(self.state), dtype=torch.bool)
        scored[with_scores] = True
        made = [
            *self._limits.sampling.over(
                lambda rows: self._moved(rows, step, drawn), (~scored).nonzero().flatten()
            ),
            *self._limits.training.over(
                lambda rows: self._moved_with_scores(rows, step, drawn), scored.nonzero().flatten()
            ),
        ]
        moved = made[0] if len(made) == 1 else _in_order(made)
        self.state = moved.state
        num_steps = len(self._policy.sampler.noisy)
        when = f"at step {step + 1} of {num_steps}"
        network = f"{precision_of(self._policy)} {when}".lstrip()
        self._checks += [
            ("network", network, moved.magnitude),
            ("latents", when, magnitude(self.state)),
        ]
        if step + 1 in self._kept:
            self._path.append(self.state)
        if noisy:
            self._log_probs.append(moved.log_prob)
        if noisy and self._means is not None:
            self._means.append(moved.mean)

    def trajectory(self) -> Trajectory:
        """Returns the way that the samples took, on the host."""
        steps = torch.tensor(self._policy.sampler.noisy).nonzero().flatten()
        empty = torch.empty(len(self.state), 0)
        log_probs = torch.stack(self._log_probs, 1).cpu() if self._log_probs else empty
        path, faults = torch.stack(self._path, 1).cpu(), traced(self._checks)
        means = torch.stack(self._means, 1).cpu() if self._means else None
        return Trajectory(steps, path, log_probs, None, faults, self._kept, means)

    def _fresh(self) -> Tensor:
        drawn = noise.draw(self._generators, self._policy.denoiser.latent_shape)
        return drawn.to(self._policy.denoiser.device)

    def _moved(self, rows: Tensor, step: int, drawn: Tensor | None) -> "_Moved":
        """Makes a denoising step with some of the samples."""
        place = slice(None) if len(rows) == len(self.state) else rows
        number = torch.full((len(rows),), step)
        conditioning = {name: each[place] for name, each in self._conditioning.items()}
        output = self._policy.output(self.state[place], number, conditioning)
        law = self._policy.sampler.step(output, self.state[place], number)
        if drawn is None:
            return _Moved(rows, magnitude(output), law.mean, law.mean, torch.empty(0))
        state = law.sample(drawn[place]).detach()
        return _Moved(rows, magnitude(output), law.mean.detach(), state, law.log_prob(state))

    def _moved_with_scores(self, rows: Tensor, step: int, drawn: Tensor | None) -> "_Moved":
        """Makes a random denoising step with some of the samples, and adds its scores to the
        gradients of the first update.
        """
        denoiser, first = self._policy.denoiser, self._first
        assert isinstance(denoiser, HasSampleGradients) and first is not None
        samples = [self._draws.indices[row] for row in rows.tolist()]
        with torch.enable_grad():
            with denoiser.recorded() as record:
                moved = self._moved(rows, step, drawn)
            first.add(samples, step, record, moved.log_prob)
        return replace(moved, log_prob=moved.log_prob.detach())


@dataclass(frozen=True)
class _Moved:
    """Some of the samples after a step.

    Attributes:
        rows: Shape (N,): which of the samples.
        magnitude: Shape (N,): the largest magnitude of the network's output.
        mean: Shape (N, *L): the mean of the state.
        state: Shape (N, *L).
        log_prob: Shape (N,); empty for a deterministic step.
    """

    rows: Tensor
    magnitude: Tensor
    mean: Tensor
    state: Tensor
    log_prob: Tensor


def _in_order(parts: Sequence[_Moved]) -> _Moved:
    """Joins parts in the order of the samples."""
    rows = torch.cat([part.rows for part in parts])
    back = rows.argsort()
    each = [(part.magnitude, part.mean, part.state, part.log_prob) for part in parts]
    magnitudes, mean, state, log_prob = (torch.cat(columns) for columns in zip(*each, strict=True))
    place = back.to(state.device)
    ordered = log_prob[place] if len(log_prob) else log_prob
    return _Moved(rows[back], magnitudes[place], mean[place], state[place], ordered)


def _kept_states(noisy: Sequence[bool], first: FirstUpdate | None) -> tuple[int, ...]:
    """Returns which states of a trajectory are kept, from 0 (noise) to T: those before and after
    the random steps that are trained on, and the last. If the first update is the only one, its
    transitions are not needed; those of one step remain, to check the updated policy.
    """
    steps = [step for step, is_noisy in enumerate(noisy) if is_noisy]
    if first is not None and first.is_only:
        steps = steps[len(steps) // 2 :][:1]
    return tuple(sorted({len(noisy), *steps, *(step + 1 for step in steps)}))
