"""The policy update: optimizer steps on the advantages of a rollout."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError, NonFiniteError
from rediffuse.faults import cure, first_not_finite
from rediffuse.learning.average import Average
from rediffuse.learning.batches import Batches, Rows, kind_for
from rediffuse.learning.first_update import first_update
from rediffuse.learning.gradients import Gradients
from rediffuse.learning.order import minibatches
from rediffuse.learning.totals import Totals
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.memory import RowLimits
from rediffuse.processes.world import World
from rediffuse.runs import checkpoint
from rediffuse.runs.checkpoint import Checkpoint
from rediffuse.runs.rows import UpdateColumns
from rediffuse.types import Algorithm, FirstUpdate, HasRatio, Prompt, Remembers, Rollout

MOST_SKIPPED = 3
"""The run ends after this many consecutive updates without a finite loss and gradient."""
SMALLEST_SCALE = 1.0
"""The loss scale in fp16 down to which overflowing gradients are part of the search for the
scale.
"""


class Learner:
    """Updates the policy. Owns the optimizer, the loss scale and the moving average of the weights.

    Attributes:
        skipped: For each of the latest consecutive skipped updates, what was not finite in it.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        algorithm: Algorithm,
        config: Config,
        world: World,
        limits: RowLimits,
    ) -> None:
        self.policy, self.algorithm, self.config, self.world = policy, algorithm, config, world
        self.limits = limits
        options, parameters = config.optimizer, policy.denoiser.parameters()
        self.optimizer = torch.optim.AdamW(
            parameters.values(),
            config.learning_rate,
            options.betas,
            options.epsilon,
            options.weight_decay,
        )
        self.scaler = torch.amp.GradScaler(
            policy.denoiser.device.type, enabled=policy.denoiser.needs_loss_scaling
        )
        self.average = Average(parameters, config.ema_decay)
        self.skipped: list[str] = []

    def advantages(self, rewards: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Computes the advantages of an epoch's samples, of all processes.

        Args:
            rewards: Shape (num_samples,), NaN for masked rewards.
            prompts: The prompt of each sample.

        Returns:
            Shape (num_samples,); NaN for samples that are not trained on, such as all masked ones.
        """
        valid = rewards.isfinite()
        if self.algorithm.groups == "draw":
            groups = torch.arange(len(prompts)) // self.config.images_per_prompt
        else:
            groups = torch.tensor([prompt.group for prompt in prompts])
        advantages = torch.full_like(rewards, torch.nan)
        advantages[valid] = self.algorithm.advantages(rewards[valid], groups[valid])
        return advantages

    def first_update(self, epoch: int) -> FirstUpdate | None:
        """Returns the first update of an epoch, for sampling to compute its gradients; None if the
        run's updates need a second pass.
        """
        if self.config.one_pass is not True:
            return None
        scale = self.scaler.get_scale()
        return first_update(self.policy, self.algorithm, self.config, self.world, epoch, scale)

    def state(self, epoch: int) -> Checkpoint:
        """Returns everything needed to resume after `epoch` epochs. Its tensors are not copies."""
        parameters = self.policy.denoiser.parameters()
        memory = {
            "algorithm_name": self.config.algorithm["name"],
            "algorithm": self.algorithm.state() if isinstance(self.algorithm, Remembers) else {},
            "loss_scale": self.scaler.state_dict(),
        }
        moments = checkpoint.optimizer_state(self.optimizer, parameters)
        return Checkpoint(epoch, {**parameters, **self.average.state()}, moments, memory)

    def load(self, saved: Checkpoint) -> None:
        """Restores the result of `state`.

        Raises:
            ConfigError: It belongs to another algorithm or to a model with other shapes.
        """
        name = saved.state["algorithm_name"]
        if name != self.config.algorithm["name"]:
            raise ConfigError(
                f"algorithm.name: {self.config.algorithm['name']!r} in config.yaml, but the"
                f" checkpoint is of {name!r}. Undo the change, or start a new run."
            )
        self.load_weights(saved)
        checkpoint.restore_optimizer(
            self.optimizer, self.policy.denoiser.parameters(), saved.optimizer
        )
        self.scaler.load_state_dict(saved.state["loss_scale"])
        if isinstance(self.algorithm, Remembers):
            self.algorithm.load(saved.state["algorithm"])

    def load_weights(self, saved: Checkpoint) -> None:
        """Restores only the weights and their average. This suffices to export them, not to
        resume.
        """
        checkpoint.put_back(
            saved.weights, {**self.policy.denoiser.parameters(), **self.average.state()}
        )

    def update(
        self,
        rollout: Rollout,
        advantages: Tensor,
        epoch: int,
        first: FirstUpdate | None = None,
    ) -> UpdateColumns:
        """Makes the updates of an epoch.

        Each gradient is that of the mean over the minibatch's rows of all processes, regardless of
        the micro-batch size.

        Args:
            rollout: The samples of this process.
            advantages: Shape (num_samples,), of all processes; samples with NaN are not trained on.
            epoch: The number of the epoch.
            first: The result of `first_update`, after sampling.

        Returns:
            The columns of the epoch's row that describe its updates.

        Raises:
            NonFiniteError: In all processes, if MOST_SKIPPED consecutive updates are skipped or the
                updated policy is not finite.
        """
        batches = self._batches(rollout, advantages)
        limit: UpdateColumns = {}
        if isinstance(self.algorithm, HasRatio):
            limit["max_ratio_drift"] = self.algorithm.max_ratio_drift
        totals = Totals(self.algorithm.metric_names, has_ratio=bool(limit))
        gradients = Gradients(batches, self.limits.training, totals, first)
        valid = advantages.isfinite()
        passes = self.algorithm.passes
        if passes.restart_optimizer:
            self.optimizer.state.clear()
        for inner in range(passes.inner_epochs):
            drawn, seed = inner if passes.reshuffle else 0, self.config.seed
            updates = minibatches(seed, epoch, drawn, valid, self.config.updates_per_epoch)
            for number, minibatch in enumerate(updates):
                self.world.stop_if_asked()
                rows = batches.rows(minibatch, (epoch, inner))
                num_rows = len(minibatch) * batches.choices[0]
                if num_rows:
                    self._step(gradients, rows, num_rows, is_first=inner == number == 0)
        self._try_out(
            self._batches(
                rollout, torch.ones_like(advantages).where(advantages.isfinite(), torch.nan)
            ),
            epoch,
        )
        return {"trained_samples": int(valid.sum()), **totals.means(self.world), **limit}

    def _batches(self, rollout: Rollout, advantages: Tensor) -> Batches:
        kind = kind_for(self.algorithm)
        return kind(
            self.policy,
            self.algorithm,
            self.config,
            self.world,
            rollout,
            advantages[rollout.indices],
        )

    def _step(self, gradients: Gradients, rows: Rows, num_rows: int, *, is_first: bool) -> None:
        parameters = list(self.policy.denoiser.parameters().values())
        scale = self.scaler.scale(torch.ones((), device=self.world.device))
        totals, lost = gradients.totals, gradients.totals.lost
        total = gradients.of(rows, num_rows, scale, is_first=is_first)
        totals.settle()
        for parameter, gradient in zip(parameters, self.world.summed(total), strict=True):
            parameter.grad = gradient
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(
            parameters, self.config.optimizer.max_grad_norm
        ).item()
        no_loss = self.world.any(totals.lost > lost)
        totals.grad_norms.append(math.nan if no_loss else norm)
        if math.isfinite(totals.grad_norms[-1]):
            self._decay_first_moments()
            self.scaler.step(self.optimizer)
            self._round_first_moments()
            self.average.update()
            self.skipped.clear()
        elif no_loss or not self.scaler.is_enabled() or self.scaler.get_scale() <= SMALLEST_SCALE:
            self._skip("loss" if no_loss else "gradient")
        self.scaler.update()
        self.optimizer.zero_grad()

    def _skip(self, what: str) -> None:
        self.skipped.append(what)
        if len(self.skipped) >= MOST_SKIPPED:
            raise NonFiniteError(
                f"{len(self.skipped)} updates in a row were skipped: the {what} is not finite."
                f" {self._advice()}"
            )

    @torch.no_grad()
    def _try_out(self, batches: Batches, epoch: int) -> None:
        """Checks the updated policy before it is sampled from or saved. The advantages in `batches`
        are 1, which cannot overflow.
        """
        parameters = self.policy.denoiser.parameters()
        moments = checkpoint.optimizer_state(self.optimizer, parameters)
        named = first_not_finite({**parameters, **self.average.state(), **moments})
        broken = named is not None or not self._gives_numbers(batches, epoch)
        if self.world.any(broken):
            where = (
                f"numbers that are not finite, first in {named}"
                if named
                else "a policy whose loss is not finite"
            )
            raise NonFiniteError(f"The updates of epoch {epoch} left {where}. {self._advice()}")

    def _gives_numbers(self, batches: Batches, epoch: int) -> bool:
        """Whether any row of one sample of this process has a finite loss; usually the first
        has.
        """
        mine = batches.rollout.indices[batches.advantages.isfinite()][:1]
        rows = batches.checkable(mine, (epoch, 0)).split(1)
        return not rows or any(self._has_loss(batches, row) for row in rows)

    def _has_loss(self, batches: Batches, row: Rows) -> bool:
        loss = self.algorithm.loss(self.policy, batches.batch(row, batches.references([row])[0]))
        return math.isfinite(loss.value.item()) and (
            loss.log_ratio is None or math.isfinite(loss.log_ratio.item())
        )

    def _advice(self) -> str:
        precision = str(self.config.model.get("precision", ""))
        wider = f" {cure('network', precision)}" if precision == "fp16" else ""
        return (
            f"The learning rate, {self.config.learning_rate:g}, may be too high.{wider} The run"
            " is saved up to the previous epoch: change its config.yaml, then resume."
        )

    def _decay_first_moments(self) -> None:
        """Changes the first moments such that AdamW's fp32 product with beta is their bf16 product
        with beta rounded to bf16, as in the authors' TPU code.
        """
        if self.config.optimizer.first_moment == "bf16":
            beta = self.config.optimizer.betas[0]
            for state in self.optimizer.state.values() if beta else ():
                rounded = torch.tensor(beta, dtype=torch.bfloat16, device=state["exp_avg"].device)
                state["exp_avg"].copy_((state["exp_avg"].bfloat16() * rounded).float() / beta)

    def _round_first_moments(self) -> None:
        if self.config.optimizer.first_moment == "bf16":
            for state in self.optimizer.state.values():
                state["exp_avg"].copy_(state["exp_avg"].bfloat16())
