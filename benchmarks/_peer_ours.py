"""Our side of benchmarks/peer.py: the training loop of `rediffuse.begin`.

python -m benchmarks._peer_ours JOB.json
"""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import rediffuse
from benchmarks import _meter, _peer_job
from benchmarks._loop import epochs_alone
from benchmarks._peer_job import Job
from rediffuse.callbacks.protocol import Epoch, RunState


def reward(images: Tensor, prompts: Any) -> Any:
    return _peer_job.reward(images)


def options(job: Job) -> dict[str, Any]:
    """Returns the run's configuration. Rows and one-pass gradients are rediffuse's own choice."""
    found: dict[str, Any] = {
        "seed": _peer_job.SEED,
        "prompts_per_epoch": job.images,
        "updates_per_epoch": job.updates,
        "learning_rate": _peer_job.LEARNING_RATE,
        "model": {
            "name": "stable_diffusion",
            "source": job.pipeline,
            "guidance_scale": _peer_job.GUIDANCE_SCALE,
        },
        "sampler": {"name": "ddim", "num_steps": job.steps},
        "algorithm": {
            "name": "ddpo_is",
            "advantage": "batch",
            "clip_range": _peer_job.CLIP_RANGE,
        },
        "prompts": {"name": "text_file", "path": job.prompts},
    }
    return found | ({"micro_batch_size": job.rows} if job.rows else {})


class Recorder(rediffuse.Callback):
    """Measures each epoch, from its beginning to its last callback, and keeps what the gate
    compares.
    """

    def __init__(self, job: Job) -> None:
        self._job, self.epochs = job, list[dict[str, float]]()
        self.recorded: dict[str, Tensor] = {}
        self.growth_bytes = 0

    def run_begins(self, run: RunState) -> None:
        parameters = run.learner.policy.denoiser.parameters()
        if self._job.adapter:
            initial = load_file(self._job.adapter)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(initial[name])
        if self._job.record:
            run.learner.optimizer.register_step_pre_hook(lambda *_: self._keep_first(run))
        _meter.forget_peak()
        self._before = _meter.resident_bytes()

    def epoch_begins(self, run: RunState) -> None:
        self._keep("before", run)
        self._times = [_meter.cpu_seconds()]

    def scored(self, run: RunState, *_: Any) -> None:
        self._times.append(_meter.cpu_seconds())

    def updated(self, run: RunState, *_: Any) -> None:
        self._times.append(_meter.cpu_seconds())

    def epoch_ends(self, run: RunState, epoch: Epoch) -> None:
        begun, scored, updated = self._times
        columns = ("loss", "approx_kl", "clip_fraction")
        metrics: dict[str, Any] = {**epoch.metrics}
        self.epochs.append(
            {
                "sampling": scored - begun,
                "training": updated - scored,
                "whole": _meter.cpu_seconds() - begun,
                **{name: metrics[name] for name in columns},
            }
        )
        self._keep("after", run)
        if self._job.record:
            self.recorded["log_probs"] = epoch.rollout.trajectory.log_probs
        self.growth_bytes = _meter.peak_bytes() - self._before

    def _keep(self, when: str, run: RunState) -> None:
        for name, value in self._parameters(run):
            self.recorded[f"{when}.{name}"] = value.detach().clone()

    def _keep_first(self, run: RunState) -> None:
        for name, value in self._parameters(run):
            if value.grad is not None:
                self.recorded.setdefault(f"gradient.{name}", value.grad.detach().clone())

    def _parameters(self, run: RunState) -> list[tuple[str, Any]]:
        named = run.learner.policy.denoiser.parameters().items()
        return list(named) if self._job.record else []


def run(job: Job) -> None:
    """Trains as the job says and writes what was measured."""
    recorder = Recorder(job)
    with epochs_alone(options(job), Path(job.out) / "run", reward, [recorder]) as training:
        for _ in range(job.epochs):
            training.step()
    config = training.config
    chosen: dict[str, Any] = {
        name: config.rows_for(name) for name in ("sampling", "decoding", "training")
    }
    chosen["one_pass"] = config.one_pass
    _peer_job.write_result(job, recorder.epochs, recorder.growth_bytes, chosen)
    if job.record:
        save_file({n: t.contiguous() for n, t in recorder.recorded.items()}, job.arrays)


if __name__ == "__main__":
    _meter.use_one_core()
    torch.set_num_threads(1)
    run(Job.read(sys.argv[1]))
