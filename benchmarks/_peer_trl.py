"""The peer's side of benchmarks/peer.py: TRL's DDPOTrainer, in an environment of its own.

python -m benchmarks._peer_trl JOB.json
"""

import sys
import warnings
from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch import Tensor
from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

from benchmarks import _meter, _peer_job
from benchmarks._peer_draws import given_draws
from benchmarks._peer_job import Job

NEVER = 10**9


def reward(images: Tensor, prompts: Any, metadata: Any) -> tuple[Tensor, dict[str, Any]]:
    return _peer_job.reward(images.float()), {}


def trainer_for(job: Job, precision: str = "no") -> DDPOTrainer:
    """Returns the trainer of a job, without checkpoints and without mixed precision, which is fp16
    by default.
    """
    PartialState()  # the pipeline logs a warning through accelerate, which needs it
    config = DDPOConfig(
        seed=_peer_job.SEED,
        mixed_precision=precision,
        save_freq=NEVER,
        sample_num_steps=job.steps,
        sample_guidance_scale=_peer_job.GUIDANCE_SCALE,
        sample_batch_size=job.batch,
        sample_num_batches_per_epoch=job.images // job.batch,
        train_batch_size=job.batch,
        train_gradient_accumulation_steps=job.images // job.batch // job.updates,
        train_learning_rate=_peer_job.LEARNING_RATE,
        train_clip_range=_peer_job.CLIP_RANGE,
    )
    words = cycle(job.texts())
    pipeline = DefaultDDPOStableDiffusionPipeline(job.pipeline)
    trainer = DDPOTrainer(config, reward, lambda: (next(words), {}), pipeline)
    pipeline.set_progress_bar_config(disable=True)
    if job.adapter:
        initial = load_file(job.adapter)
        with torch.no_grad():
            for name, parameter in learning(trainer).items():
                parameter.copy_(initial[name])
    return trainer


def learning(trainer: DDPOTrainer) -> dict[str, Any]:
    """Returns the trained parameters by name."""
    named = trainer.sd_pipeline.unet.named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


class Stopwatch:
    """Adds up the seconds of some of the trainer's methods, by default CPU seconds."""

    def __init__(self, clock: Callable[[], float] = _meter.cpu_seconds) -> None:
        self.clock = clock
        self.seconds = dict.fromkeys(_peer_job.PHASES, 0.0)
        self.returned: Any = None

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            began = self.clock()
            self.returned = function(*args, **kwargs)
            self.seconds[phase] += self.clock() - began
            if phase == "sampling":
                self.samples = self.returned[0]
            return self.returned

        return measured


def run(job: Job) -> None:
    """Trains as the job says and writes what was measured."""
    trainer = trainer_for(job)
    watch, logged, gradients = Stopwatch(), [], {}
    trainer.accelerator.log = lambda values, step: logged.append(values)
    trainer._generate_samples = watch.timed("sampling", trainer._generate_samples)
    trainer._train_batched_samples = watch.timed("training", trainer._train_batched_samples)
    step = watch.timed("whole", trainer.step)
    parameters = learning(trainer)
    recorded = {f"before.{n}": p.detach().clone() for n, p in parameters.items()}

    def keep_first(*_: Any) -> None:
        for name, parameter in parameters.items() if not gradients else ():
            gradients[f"gradient.{name}"] = parameter.grad.detach().clone()

    if job.record:
        trainer.optimizer.optimizer.register_step_pre_hook(keep_first)
    _meter.forget_peak()
    before, epochs, at = _meter.resident_bytes(), [], 0
    for epoch in range(job.epochs):
        watch.seconds = dict.fromkeys(_peer_job.PHASES, 0.0)
        with given_draws(job.draws, job.batch):
            at = step(epoch, at)
        epochs.append({**watch.seconds, **_means(logged)})
        logged.clear()
    _peer_job.write_result(job, epochs, _meter.peak_bytes() - before)
    if job.record:
        recorded |= gradients | {f"after.{n}": p.detach() for n, p in parameters.items()}
        if job.epochs:
            recorded["log_probs"] = torch.cat([each["log_probs"] for each in watch.samples])
        save_file({n: t.contiguous() for n, t in recorded.items()}, job.arrays)


def _means(logged: list[dict[str, Any]]) -> dict[str, float]:
    updates = [values for values in logged if "loss" in values]
    names = {"loss": "loss", "approx_kl": "approx_kl", "clipfrac": "clip_fraction"}
    return {
        ours: sum(float(values[theirs]) for values in updates) / len(updates)
        for theirs, ours in names.items()
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _meter.use_one_core()
    torch.set_num_threads(1)
    run(Job.read(sys.argv[1]))
