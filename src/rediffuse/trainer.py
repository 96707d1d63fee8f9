"""The loop. Read this file first."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rediffuse import fingerprint, lengths, scoring, trust
from rediffuse.average import Average
from rediffuse.config import Config, chosen, recipe_names
from rediffuse.errors import (
    CheckpointError,
    ConfigError,
    Interrupted,
    LostProcessError,
    NonFiniteError,
    RediffuseError,
    RewardError,
)
from rediffuse.evaluate import Pictures
from rediffuse.journal import Paid
from rediffuse.judging import distinct_names, name_of, prepare
from rediffuse.lookup import Parts, assemble, completed
from rediffuse.maths import noise
from rediffuse.monitor import Monitor
from rediffuse.overoptimisation import Course, course
from rediffuse.policy import DiffusionPolicy
from rediffuse.progress import Display
from rediffuse.report import page, verdict
from rediffuse.rollout import Draws, collect, group_of
from rediffuse.runs import audit, checkpoint, export, files, folder, log
from rediffuse.runs.folder import RunFolder
from rediffuse.threads import Caller
from rediffuse.types import Combines, Metrics, Prompt, Reward, Rollout
from rediffuse.update import Learner
from rediffuse.world import World

SMALL_BYTES = 100_000_000
"""Of a checkpoint of which every look keeps one, so that a better one of before can be gone back to: an adapter's."""
UNKNOWN = "known to the first process alone"


class Trainer:
    """A run, ready to start or to go on."""

    def __init__(self, config: Config, parts: Parts, run: RunFolder, world: World) -> None:
        self.config, self.run, self.world = config, run, world
        self.prompts, self.reward, self.algorithm = parts.prompts, parts.reward, parts.algorithm
        self.caller = Caller()
        self.reasons: list[str] = []
        prepare(self.reward, world.device, self.caller)
        denoiser = parts.family.load(world.device, config.seed)
        self.policy = DiffusionPolicy(denoiser, parts.sampler.bind(denoiser.schedule))
        if not any(self.policy.sampler.noisy):
            raise ConfigError(
                "sampler.eta: no step of this sampler draws anything, so there is nothing to learn; set it above 0."
            )
        options = config.optimizer
        self.optimizer = torch.optim.AdamW(
            denoiser.parameters().values(), config.learning_rate, options.betas, options.epsilon, options.weight_decay
        )
        self.average = Average(denoiser.parameters(), config.ema_decay)
        self.scaler = torch.amp.GradScaler(denoiser.device.type, enabled=denoiser.needs_loss_scaling)
        self.learner = Learner(self.policy, self.algorithm, self.optimizer, self.scaler, self.average, config, world)
        self.pictures = Pictures(self.policy, self.prompts, config, world)
        self.display = Display(config.epochs, shown=world.is_main)
        held_out = dict(zip(distinct_names(each["name"] for each in config.evaluation.held_out), parts.held_out, strict=True))
        self.monitor = Monitor(self.policy, held_out, self.reward, config, run, world, self.display.say, self.caller)
        if world.is_main:
            self.monitor.prepare()
        self.course = Course(None, None)
        self.paid = Paid(run.paid(world.rank), config.reward)
        self.first_epoch = 0

    def train(self) -> list[Metrics]:
        """To the last epoch, or to where the monitor stops it. On a signal it raises Interrupted, with all whole epochs saved."""
        history: list[Metrics] = []
        with self.display, closing(self.caller):
            self._warn_of_long_prompts()
            for epoch in range(self.first_epoch, self.config.epochs):
                before = self._unsaved_state(epoch)
                self.world.heart.rescue = partial(self._save, before)
                try:
                    if self._stops_at(epoch):
                        self._save(before)
                        break
                    history.append(self._epoch(epoch))
                except NonFiniteError as error:
                    if not error.of_the_policy:
                        self._save(before)
                        raise
                    raise NonFiniteError(f"{error}{self._doubt(epoch)}", of_the_policy=True) from error
                except (Interrupted, RewardError, LostProcessError):
                    self._leave(epoch, before)
                    raise
            else:
                self._last_look()
            self.world.together(self._finish)
            self.world.together(self._forget_paid)
        return history

    def restore(self, *, drop_damaged_lines: bool = False) -> None:
        """Back to the newest whole checkpoint, or to the start if none was reached.

        drop_damaged_lines: of the logs, instead of refusing to go on.
        """
        parameters = self.policy.denoiser.parameters()
        if any(self.run.checkpoints.glob("epoch-*")):
            saved = checkpoint.load_newest(self.run.checkpoints)
            if saved.state["algorithm_name"] != self.config.algorithm["name"]:
                raise ConfigError(
                    f"algorithm.name: {self.config.algorithm['name']!r} in config.yaml, but the checkpoint is of"
                    f" {saved.state['algorithm_name']!r}. Undo the change, or start a new run."
                )
            checkpoint.put_back(saved.weights, {**parameters, **self.average.state()})
            checkpoint.restore_optimizer(self.optimizer, parameters, saved.optimizer)
            self.scaler.load_state_dict(saved.state["loss_scale"])
            self.algorithm.load(saved.state["algorithm"])
            self.first_epoch = saved.epoch
            self.display.start_at(saved.epoch)
        if self.world.is_main:
            self.pictures.refuse_others(self.run.samples)
            if not drop_damaged_lines:
                audit.refuse_gaps(self.run, self.first_epoch)
        self.paid.load(self.run.all_paid(), drop_damaged=drop_damaged_lines)
        self.world.wait_for_all()
        if self.world.is_main:
            checkpoint.set_aside_newer(self.run.checkpoints, self.first_epoch)
            for path in (self.run.metrics, self.run.rewards, self.run.monitor):
                log.keep_before(path, self.first_epoch, drop_damaged=drop_damaged_lines)

    def _epoch(self, epoch: int) -> Metrics:
        """All of it or, if it is interrupted or its rewards fail, nothing."""
        prompts = self._draw_prompts(epoch)
        if epoch > self.first_epoch and epoch % self.config.logging.checkpoint_every == 0:
            self.paid.clear()
        began = time.perf_counter()
        rollout, scores = self.world.together(lambda: self._sample(epoch, prompts))
        sampled = time.perf_counter()
        scores = self._gathered(scores, rollout.indices, len(prompts))
        scores.refuse_too_few(self.config.scoring)
        if isinstance(self.reward, Combines):
            scores = scores.combined(self.reward)
        rewards = scores.rewards
        self.world.heart.beat("learning")
        learned = self.learner.update(rollout, self._advantages(rewards, prompts), epoch)
        done = time.perf_counter()
        metrics = {
            "epoch": epoch,
            **scoring.summary(name_of(self.reward), scores),
            "reward_queries": (epoch + 1) * len(prompts),
            **learned,
            "seconds_sampling": sampled - began,
            "seconds_reward": scores.seconds,
            "seconds_training": done - sampled,
            "images_per_second": len(prompts) / (done - began),
            "peak_memory_bytes": self.world.peak_memory_bytes(),
            **({"max_ratio_drift": self.algorithm.max_ratio_drift} if "ratio_drift" in learned else {}),
            **({"relative_reward": 1.0} if isinstance(self.reward, Combines) and self.config.reward.get("normalize") else {}),
        }
        self._record(epoch, metrics, scoring.journal(epoch, prompts, scores))
        self.display.broken(scores.faults)
        self.display.epoch_done(metrics, self.algorithm.max_ratio_drift)
        return metrics

    def _warn_of_long_prompts(self) -> None:
        if self.world.is_main and self.first_epoch < self.config.epochs:
            texts = lengths.known(self.prompts, self._draw_prompts(self.first_epoch))
            if said := lengths.warning(self.policy.denoiser, texts):
                self.display.say(said)

    def _draw_prompts(self, epoch: int) -> list[Prompt]:
        """Of the whole epoch, each as many times as it has images."""
        drawn = self.prompts.draw(self.config.prompts_per_epoch, noise.generator(self.config.seed, epoch, "prompts"))
        return [prompt for prompt in drawn for _ in range(self.config.images_per_prompt)]

    def _sample(self, epoch: int, prompts: Sequence[Prompt]) -> tuple[Rollout, scoring.Scores]:
        self.world.heart.beat("sampling")
        mine = self.world.share(len(prompts))
        draws = Draws(mine, [prompts[i] for i in mine], (self.config.seed, epoch, "noise"))
        rollouts = collect(self.policy, draws, self.config.micro_batch_size, self.world, self.algorithm.learns_from)
        scorer = scoring.Scorer(
            self.reward,
            self.config.scoring,
            epoch=epoch,
            num_samples=len(prompts),
            paid=self.paid,
            caller=self.caller,
            reasons=self.reasons,
            stop_if_asked=self.world.stop_here_if_asked,
            tell=self.display.say,
        )
        return scorer.score(self.display.counted(rollouts), len(mine))

    def _gathered(self, mine: scoring.Scores, indices: Tensor, num_samples: int) -> scoring.Scores:
        """Of all processes, in the order of the samples."""
        columns = (mine.rewards, mine.image_hashes, mine.statuses, mine.attempts)
        rewards, hashes, statuses, attempts = (self.world.gathered(each, indices, num_samples) for each in columns)
        unknown, silent = torch.full_like(mine.rewards, torch.nan), [""] * len(mine.rewards)
        parts = {
            name: self.world.gathered(mine.parts.get(name, unknown), indices, num_samples)
            for name in self.world.names_of_all(mine.parts)
        }
        notes = {
            name: self.world.gathered_texts(mine.notes.get(name, silent), indices, num_samples)
            for name in self.world.names_of_all(mine.notes)
        }
        return scoring.Scores(rewards, hashes, mine.seconds, parts, notes, statuses, attempts)

    def _advantages(self, rewards: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """(num_samples,), NaN where the reward is not a finite number: masked, never trained on."""
        groups, valid = self._groups(prompts), rewards.isfinite()
        advantages = torch.full_like(rewards, torch.nan)
        advantages[valid] = self.algorithm.advantages(rewards[valid], groups[valid])
        return advantages

    def _groups(self, prompts: Sequence[Prompt]) -> Tensor:
        if self.algorithm.groups == "draw":
            return torch.arange(len(prompts)) // self.config.images_per_prompt
        return torch.tensor([group_of(prompt) for prompt in prompts])

    def _stops_at(self, epoch: int) -> bool:
        """After a look at what the policy makes before this epoch, if one is due."""
        if self._looks_at(epoch):
            self.world.together(lambda: self._look(epoch))
        return self.world.any(self.course.fall is not None and self.config.evaluation.on_overoptimisation == "stop")

    def _looks_at(self, epoch: int) -> bool:
        every = self.config.evaluation.every
        return not (epoch % every if every else epoch)

    def _look(self, epoch: int) -> None:
        if not self.world.is_main:
            return
        self.world.heart.beat("looking at fixed prompts")
        with self.average.shown():
            self.monitor.look(epoch, self.pictures.save(self.run.samples / f"epoch-{epoch:05d}"))
        known, folder = self.course.fall, self.run.checkpoints
        kept = self.run.planned_checkpoints(self.config.logging.checkpoint_every, self.config.epochs)
        self.course = course(log.read(self.run.metrics), log.read(self.run.monitor), kept)
        checkpoint.call_best(folder, self.course.best)
        if self.course.fall and not known:
            self.display.overoptimised(self.course.fall, self.course.best, self.config.evaluation.on_overoptimisation)

    def _last_look(self) -> None:
        try:
            self.world.together(lambda: self._look(self.config.epochs))
        except (Interrupted, RewardError, LostProcessError):
            self._leave(self.config.epochs, None)
            raise

    def _finish(self) -> None:
        """Exports the last checkpoint; the best one of a run that went too far, where that was not only to be warned of."""
        if not self.world.is_main:
            return
        epochs = len(log.read(self.run.metrics))
        if self.course.fall and self.course.best and self.config.evaluation.on_overoptimisation != "warn":
            try:
                epochs = self._put_back(checkpoint.load(self.run.checkpoints, "best"))
            except CheckpointError as error:
                self.display.say(f"{error} The last checkpoint is exported instead.")
        self._export(epochs)

    def _leave(self, epoch: int, before: checkpoint.Checkpoint | None) -> None:
        """A stop or a failed reward: a checkpoint, the adapter and the page are those of the last whole epoch.

        before: the state then, unless it is on disk already.
        """
        self._save(before)
        if not self.world.is_main:
            return
        if epoch == 0:
            self.display.say("No epoch was finished, so there is no adapter yet.")
            return
        self._export(self._put_back(before or checkpoint.load(self.run.checkpoints, str(epoch))))
        self.display.say(f"The adapter and the page are those of the last whole epoch: {epoch} of {self.config.epochs} are done.")

    def _put_back(self, saved: checkpoint.Checkpoint) -> int:
        """Its weights, without what belongs to going on; how many epochs it is of."""
        checkpoint.put_back(saved.weights, {**self.policy.denoiser.parameters(), **self.average.state()})
        return saved.epoch

    def _export(self, epochs: int) -> None:
        with self.world.heart.busy("writing the adapter"), self.average.shown():
            export.adapter(self.policy.denoiser, self.run, epochs)
        self._report()

    def _report(self) -> None:
        """Never worth a run: what is wrong with it is said, and `rediffuse report` can make it anew."""
        try:
            with self.world.heart.busy("writing the page"):
                verdict.write(self.run)
                page.write(self.run)
        except Exception as error:
            self.display.say(f"the page could not be written: {type(error).__name__}: {error}")

    def _forget_paid(self) -> None:
        """Also what more processes left, if this run was one of them once."""
        self.paid.clear()
        if self.world.is_main:
            for path in self.run.all_paid():
                files.remove(path)

    def _record(self, epoch: int, metrics: Metrics, journal: scoring.Journal) -> None:
        if self.world.is_main:
            log.append(self.run.rewards, journal)
            log.append(self.run.metrics, [metrics])
        if (epoch + 1) % self.config.logging.checkpoint_every == 0 or epoch + 1 == self.config.epochs:
            self._save(self._state(epoch + 1))
        every = self.config.logging.report_every
        if self.world.is_main and every and (epoch + 1) % every == 0 and epoch + 1 < self.config.epochs:
            self._report()

    def _state(self, epoch: int) -> checkpoint.Checkpoint:
        parameters = self.policy.denoiser.parameters()
        moments = checkpoint.optimizer_state(self.optimizer, parameters)
        weights = {**parameters, **self.average.state()}
        memory = {
            "algorithm_name": self.config.algorithm["name"],
            "algorithm": self.algorithm.state(),
            "loss_scale": self.scaler.state_dict(),
        }
        return checkpoint.Checkpoint(epoch, weights, moments, memory)

    def _unsaved_state(self, epoch: int) -> checkpoint.Checkpoint | None:
        """A copy of the state before the epoch, unless it is on disk already."""
        if not self.world.is_main or epoch % self.config.logging.checkpoint_every == 0 < epoch:
            return None
        return self._state(epoch).copied()

    def _doubt(self, epoch: int) -> str:
        """The state after `epoch` epochs samples nothing finite, so it is not saved. If it was saved before, and an older one is
        left, it is put aside; not where the run has begun with it, for then something else may be at fault. Says what was done.
        """
        saved = checkpoint.epochs(self.run.checkpoints) if self.world.is_main else []
        older = max(
            (each for each in saved if each < epoch), default=0 if epoch <= self.config.logging.checkpoint_every else None
        )
        if epoch not in saved or epoch == 0 or older is None:
            return ""
        if epoch == self.first_epoch:
            return f" If epoch {older} was still well, move checkpoints/epoch-{epoch:05d} away: resume then goes on from there."
        checkpoint.set_aside_newer(self.run.checkpoints, epoch - 1)
        return f" The state of epoch {epoch} is put aside: resume goes on from epoch {older}."

    def _save(self, state: checkpoint.Checkpoint | None) -> None:
        if self.world.is_main and state is not None:
            lasting = self._looks_at if state.num_bytes <= SMALL_BYTES else None
            with self.world.heart.saving, self.world.heart.busy("writing a checkpoint"):
                checkpoint.save(self.run.checkpoints, state, self.config.logging.keep_checkpoints, lasting)


def train(
    config: Config | Mapping[str, Any] | str | Path,
    run_dir: str | Path | None = None,
    reward: Reward | str | Mapping[str, Any] | None = None,
    **options: Any,
) -> list[Metrics]:
    """Fine-tune as `config` says, leave everything in `run_dir`, return one row of metrics per epoch.

    config: a Config; or a recipe, as its name, the path of a YAML file, or keys and values.
    reward: any `(images (B, 3, H, W) in [0, 1], prompts [B]) -> (B,)`, in place of the one that config names; or a name, or
        `{"name": …, option: …}`.
    options: of the run, over those of config: `epochs=4, algorithm="ddpo_is", sampler={"num_steps": 10}`.

    Raises ConfigError where a file asks for what only the command line or a Config may allow, as other people's code.
    """
    if isinstance(reward, str | Mapping):
        reward, options = None, {**options, "reward": reward}
    given, config = config, chosen(config, options)
    if isinstance(given, str | Path) and str(given) not in recipe_names():
        trust.refuse(given, config, options)
    parts = assemble(config, reward)
    config = completed(config, parts, given_in_python=reward is not None)
    with World.joined(config.num_samples, config.stall_seconds) as world:
        run = _new_folder(run_dir, config, world) if world.is_main else RunFolder(Path(run_dir or UNKNOWN))
        with run.locked() if world.is_main else nullcontext():
            try:
                with world.heart.busy("loading the models"):
                    trainer = Trainer(config, parts, run, world)
            except Exception:
                if world.is_main:
                    folder.discard(run)
                raise
            loaded = completed(config, parts, given_in_python=reward is not None)
            if world.is_main and (trainer.policy.denoiser.pinned or loaded != config):
                run.pin(trainer.policy.denoiser.pinned, loaded)
            if world.is_main:
                with world.heart.busy("reading the files of the models"):
                    run.note("files", fingerprint.of(run.config()))
                trust.remember(run.path, run.config())
            try:
                return trainer.train()
            except Exception as error:
                saved = isinstance(error, RediffuseError) and not isinstance(error, ConfigError)
                if world.is_main and not saved and not run.metrics.exists():
                    folder.discard(run)
                raise


def _new_folder(run_dir: str | Path | None, config: Config, world: World) -> RunFolder:
    return folder.create(Path(run_dir) if run_dir else folder.fresh_path("run"), config, world.device)


def resume(
    run_dir: str | Path,
    epochs: int | None = None,
    reward: Reward | None = None,
    *,
    drop_damaged_lines: bool = False,
    accept_changed_files: bool = False,
) -> list[Metrics]:
    """Go on from the newest whole checkpoint to the numbers that an uninterrupted run would have given.

    epochs: a new total, longer or shorter than was planned, but not fewer than are done.
    accept_changed_files: go on although a model or another file of this machine is not what it was when the run began.
    drop_damaged_lines: go on without those lines of the run's logs that were changed or lost; without it, RunError names them.
    """
    run = folder.existing(Path(run_dir))
    config = run.config()
    done = max(checkpoint.epochs(run.checkpoints), default=0)
    if epochs is not None and epochs < max(1, done):
        raise ConfigError(f"--epochs: {epochs} asked, but {done} epochs of {run.path} are done. Ask for {max(1, done)} or more.")
    parts = assemble(config, reward)
    with World.joined(config.num_samples, config.stall_seconds) as world, run.locked() if world.is_main else nullcontext():
        config = replace(config, epochs=epochs or config.epochs)
        with world.heart.busy("loading the models and the checkpoint"):
            if world.is_main and not accept_changed_files:
                fingerprint.refuse_changed(files.read_json(run.path / "environment.json").get("files", {}), config)
            trainer = Trainer(config, parts, run, world)
            if world.is_main and accept_changed_files:
                run.note("files", fingerprint.of(config))
            trainer.restore(drop_damaged_lines=drop_damaged_lines)
        if world.is_main:
            run.write_config(config)
        return trainer.train()
