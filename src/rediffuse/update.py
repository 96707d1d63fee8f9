"""Rollouts and advantages in, a better policy out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rediffuse.config import Config
from rediffuse.maths import noise
from rediffuse.policy import DiffusionPolicy
from rediffuse.types import Algorithm, Loss, Metrics, Rollout, Trajectory, Transitions
from rediffuse.world import World


@dataclass(frozen=True)
class Rows:
    """N choices of a trajectory of this process and one of its random steps.

    sample: (N,) positions in the rollout   k: (N,) positions among the random steps
    """

    sample: Tensor
    k: Tensor

    def split(self, size: int) -> list["Rows"]:
        """None at all where there are no rows: a process may have drawn no sample of a small minibatch."""
        return [Rows(self.sample[i : i + size], self.k[i : i + size]) for i in range(0, len(self.sample), size)]


@dataclass(frozen=True)
class Learner:
    policy: DiffusionPolicy
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    config: Config
    world: World

    def update(self, rollout: Rollout, advantages: Tensor, epoch: int) -> Metrics:
        """advantages: (num_samples,) of the whole epoch, NaN for the masked ones, which are never trained on.

        The gradient of each minibatch is that of its mean over all processes' rows, however many
        rows go through the network at a time.
        """
        totals = Totals(self.algorithm.metric_names)
        trajectory, mine = rollout.trajectory, advantages[rollout.indices]
        for inner in range(self.algorithm.inner_epochs):
            order = torch.randperm(len(advantages), generator=noise.generator(self.config.seed, epoch, "order", inner))
            for number, minibatch in enumerate(order.tensor_split(self.config.updates_per_epoch)):
                self.world.stop_if_asked()
                valid = minibatch[advantages[minibatch].isfinite()]
                rows = self._rows(rollout, valid, (epoch, inner))
                num_rows = len(valid) * self._steps_per_sample(trajectory)
                if num_rows:
                    self._step(trajectory, mine, rows, num_rows, totals, first=inner == number == 0)
        return totals.means(self.world)

    def _rows(self, rollout: Rollout, samples: Tensor, key: tuple[int, int]) -> Rows:
        """The rows of those samples that this process drew, with steps chosen by each sample's own key."""
        position = {index: place for place, index in enumerate(rollout.indices.tolist())}
        num_random, num_chosen = len(rollout.trajectory.steps), self._steps_per_sample(rollout.trajectory)
        sample, chosen = [], []
        for index in samples.tolist():
            if index in position:
                generator = noise.generator(self.config.seed, *key, "steps", index)
                sample.append(torch.full((num_chosen,), position[index]))
                chosen.append(torch.randperm(num_random, generator=generator)[:num_chosen])
        empty = torch.empty(0, dtype=torch.int64)
        return Rows(torch.cat([empty, *sample]), torch.cat([empty, *chosen]))

    def _steps_per_sample(self, trajectory: Trajectory) -> int:
        return min(self.algorithm.steps_per_sample or len(trajectory.steps), len(trajectory.steps))

    def _step(
        self, trajectory: Trajectory, advantages: Tensor, rows: Rows, num_rows: int, totals: "Totals", *, first: bool
    ) -> None:
        parameters = list(self.policy.denoiser.parameters().values())

        def gradients(part: Rows) -> tuple[tuple[Tensor, ...], Loss, int]:
            with torch.enable_grad():
                loss = self.algorithm.loss(self.policy, self._transitions(trajectory, advantages, part))
                share = loss.value * (len(part.sample) / num_rows)
                found = torch.autograd.grad(share, parameters, materialize_grads=True)
            return found, Loss(loss.value.detach(), loss.log_ratio, loss.metrics), len(part.sample)

        total = [torch.zeros_like(each) for each in parameters]
        for part, loss, weight in self.world.map(gradients, rows.split(self.config.micro_batch_size)):
            for sum_, gradient in zip(total, part, strict=True):
                sum_ += gradient
            totals.add(loss, weight, first=first)
        for parameter, gradient in zip(parameters, self.world.summed(total), strict=True):
            parameter.grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.optimizer.max_grad_norm).item()
        totals.grad_norms.append(norm)
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def _transitions(self, trajectory: Trajectory, advantages: Tensor, rows: Rows) -> Transitions:
        step = trajectory.steps[rows.k]
        device = self.world.device
        return Transitions(
            state=trajectory.path[rows.sample, step].to(device),
            next_state=trajectory.path[rows.sample, step + 1].to(device),
            step=step,
            log_prob=trajectory.log_probs[rows.sample, rows.k].to(device),
            advantage=advantages[rows.sample].float().to(device),
            conditioning={name: value[rows.sample.to(value.device)] for name, value in trajectory.conditioning.items()},
        )


class Totals:
    """Sums over rows, to become the epoch's means."""

    def __init__(self, metric_names: Sequence[str]) -> None:
        self.sums = dict.fromkeys(("loss", "approx_kl", *metric_names), 0.0)
        self.num_rows = 0
        self.ratio_drift = 0.0
        self.grad_norms: list[float] = []

    def add(self, loss: Loss, num_rows: int, *, first: bool) -> None:
        metrics = {
            "loss": loss.value.item(),
            "approx_kl": 0.5 * loss.log_ratio.square().mean().item(),
            **loss.metrics,
        }
        for name, value in metrics.items():
            self.sums[name] += value * num_rows
        self.num_rows += num_rows
        if first:
            self.ratio_drift = max(self.ratio_drift, (loss.log_ratio.exp() - 1).abs().max().item())

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
            "ratio_drift": world.summed([drifts])[0].max().item(),
        }
