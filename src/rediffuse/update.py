"""Rollouts and advantages in, a better policy out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rediffuse.average import Average
from rediffuse.config import Config
from rediffuse.maths import noise
from rediffuse.policy import DiffusionPolicy
from rediffuse.types import Algorithm, CleanSamples, Conditioning, Loss, Metrics, Rollout, Transitions
from rediffuse.world import World


@dataclass(frozen=True)
class Rows:
    """N choices of a sample of this process and one of its random steps; of clean samples, of the times it is noised to.

    sample: (N,) positions in the rollout   k: (N,) positions among the random steps   key: of the noise of clean samples
    """

    sample: Tensor
    k: Tensor
    key: tuple[int | str, ...] = ()

    def split(self, size: int) -> list["Rows"]:
        """None at all where there are no rows: a process may have drawn no sample of a small minibatch."""
        return [Rows(self.sample[i : i + size], self.k[i : i + size], self.key) for i in range(0, len(self.sample), size)]


@dataclass(frozen=True)
class Learner:
    policy: DiffusionPolicy
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Average
    config: Config
    world: World

    def update(self, rollout: Rollout, advantages: Tensor, epoch: int) -> Metrics:
        """advantages: (num_samples,) of the whole epoch, NaN for the masked ones, which are never trained on.

        The gradient of each minibatch is that of its mean over all processes' rows, however many
        rows go through the network at a time.
        """
        totals = Totals(self.algorithm)
        mine, valid = advantages[rollout.indices], advantages.isfinite().nonzero().flatten()
        if self.algorithm.restart_optimizer:
            self.optimizer.state.clear()
        for inner in range(self.algorithm.inner_epochs):
            order = valid[torch.randperm(len(valid), generator=noise.generator(self.config.seed, epoch, "order", inner))]
            for number, minibatch in enumerate(order.tensor_split(self.config.updates_per_epoch)):
                self.world.stop_if_asked()
                rows = self._rows(rollout, minibatch, (epoch, inner))
                num_rows = len(minibatch) * self._steps_per_sample(rollout)
                if num_rows:
                    self._step(rollout, mine, rows, num_rows, totals, first=inner == number == 0)
        return {"trained_samples": len(valid), **totals.means(self.world)}

    def _rows(self, rollout: Rollout, samples: Tensor, key: tuple[int, int]) -> Rows:
        """The rows of those samples that this process drew, with steps chosen by each sample's own key."""
        position = {index: place for place, index in enumerate(rollout.indices.tolist())}
        num_chosen = self._steps_per_sample(rollout)
        num_random = len(rollout.trajectory.steps) if self.algorithm.learns_from == "transitions" else num_chosen
        sample, chosen = [], []
        for index in samples.tolist():
            if index in position:
                generator = noise.generator(self.config.seed, *key, "steps", index)
                sample.append(torch.full((num_chosen,), position[index]))
                chosen.append(torch.randperm(num_random, generator=generator)[:num_chosen])
        empty = torch.empty(0, dtype=torch.int64)
        return Rows(torch.cat([empty, *sample]), torch.cat([empty, *chosen]), (self.config.seed, *key, "noised"))

    def _steps_per_sample(self, rollout: Rollout) -> int:
        asked, num_random = self.algorithm.steps_per_sample, len(rollout.trajectory.steps)
        if self.algorithm.learns_from == "transitions":
            return min(asked or num_random, num_random)
        return asked or 1

    def _step(self, rollout: Rollout, advantages: Tensor, rows: Rows, num_rows: int, totals: "Totals", *, first: bool) -> None:
        parameters = list(self.policy.denoiser.parameters().values())
        parts = rows.split(self.config.micro_batch_size)
        scale = self.scaler.scale(torch.ones((), device=self.world.device))
        references = self._references(rollout, parts) if self.algorithm.needs_reference else [None] * len(parts)

        def gradients(work: tuple[Rows, Tensor | None]) -> tuple[tuple[Tensor, ...], Loss, int]:
            part, reference = work
            with torch.enable_grad():
                loss = self.algorithm.loss(self.policy, self._batch(rollout, advantages, part, reference))
                found = torch.autograd.grad(scale * loss.value, parameters, materialize_grads=True)
            return found, Loss(loss.value.detach(), loss.log_ratio, loss.metrics), len(part.sample)

        total = [torch.zeros_like(each) for each in parameters]
        for part, loss, weight in self.world.map(gradients, list(zip(parts, references, strict=True))):
            for sum_, gradient in zip(total, part, strict=True):
                sum_.add_(gradient, alpha=weight / num_rows)
            totals.add(loss, weight, first=first)
        for parameter, gradient in zip(parameters, self.world.summed(total), strict=True):
            parameter.grad = gradient
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.optimizer.max_grad_norm).item()
        totals.grad_norms.append(norm)
        if math.isfinite(norm):
            self.scaler.step(self.optimizer)
            self.average.update()
        self.scaler.update()
        self.optimizer.zero_grad()

    def _references(self, rollout: Rollout, parts: Sequence[Rows]) -> list[Tensor]:
        """The pretrained model's means, (N, *L) of each part; the adapter is off for all lanes at once."""

        @torch.no_grad()
        def means(part: Rows) -> Tensor:
            batch = self._transitions(rollout, torch.zeros(len(rollout.indices)), part)
            return self.policy.act(batch.state, batch.step, batch.conditioning).mean.cpu()

        with self.policy.frozen():
            return list(self.world.map(means, parts))

    def _batch(self, rollout: Rollout, advantages: Tensor, rows: Rows, reference: Tensor | None) -> Transitions | CleanSamples:
        if self.algorithm.learns_from == "transitions":
            batch = self._transitions(rollout, advantages, rows)
            return batch if reference is None else replace(batch, reference_mean=reference.to(self.world.device))
        return self._clean_samples(rollout, advantages, rows)

    def _transitions(self, rollout: Rollout, advantages: Tensor, rows: Rows) -> Transitions:
        trajectory, device = rollout.trajectory, self.world.device
        step = trajectory.steps[rows.k]
        return Transitions(
            state=trajectory.path[rows.sample, step].to(device),
            next_state=trajectory.path[rows.sample, step + 1].to(device),
            step=step,
            log_prob=trajectory.log_probs[rows.sample, rows.k].to(device),
            advantage=advantages[rows.sample].float().to(device),
            conditioning=self._conditioning(rollout, rows),
        )

    def _clean_samples(self, rollout: Rollout, advantages: Tensor, rows: Rows) -> CleanSamples:
        """Each row's time and noise come from a generator of its own."""
        device, num_times = self.world.device, len(self.policy.denoiser.schedule.alpha_bar)
        keys = zip(rollout.indices[rows.sample].tolist(), rows.k.tolist(), strict=True)
        generators = [noise.generator(*rows.key, index, k) for index, k in keys]
        return CleanSamples(
            latents=rollout.trajectory.latents[rows.sample].to(device),
            time=torch.cat([torch.randint(num_times, (1,), generator=each) for each in generators]),
            noise=noise.draw(generators, self.policy.denoiser.latent_shape).to(device),
            weight=advantages[rows.sample].float().to(device),
            conditioning=self._conditioning(rollout, rows),
        )

    def _conditioning(self, rollout: Rollout, rows: Rows) -> Conditioning:
        """Made anew: kept for every sample, it would be larger than the latents."""
        with torch.no_grad():
            return self.policy.denoiser.encode([rollout.prompts[i] for i in rows.sample.tolist()])


class Totals:
    """Sums over rows, to become the epoch's means."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.has_ratio = algorithm.learns_from == "transitions"
        of_ratio = ("approx_kl",) if self.has_ratio else ()
        self.sums = dict.fromkeys(("loss", *of_ratio, *algorithm.metric_names), 0.0)
        self.num_rows = 0
        self.ratio_drift = 0.0
        self.grad_norms: list[float] = []

    def add(self, loss: Loss, num_rows: int, *, first: bool) -> None:
        metrics = {"loss": loss.value.item(), **loss.metrics}
        if loss.log_ratio is not None:
            metrics["approx_kl"] = 0.5 * loss.log_ratio.square().mean().item()
            if first:
                self.ratio_drift = max(self.ratio_drift, (loss.log_ratio.exp() - 1).abs().max().item())
        for name, value in metrics.items():
            self.sums[name] += value * num_rows
        self.num_rows += num_rows

    def means(self, world: World) -> Metrics:
        local = torch.tensor([self.num_rows, *self.sums.values()], dtype=torch.float64)
        num_rows, *sums = world.summed([local])[0].tolist()
        drifts = torch.zeros(world.size, dtype=torch.float64)
        drifts[world.rank] = self.ratio_drift
        finite = [norm for norm in self.grad_norms if math.isfinite(norm)]
        return {
            **{name: value / max(1, num_rows) for name, value in zip(self.sums, sums, strict=True)},
            "grad_norm": sum(finite) / max(1, len(finite)),
            "skipped_updates": len(self.grad_norms) - len(finite),
            **({"ratio_drift": world.summed([drifts])[0].max().item()} if self.has_ratio else {}),
        }
