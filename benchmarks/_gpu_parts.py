"""The measurements of benchmarks/gpu.py; each returns its figures by name."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import _meter
from benchmarks._gpu_setting import GIGABYTE, Setting
from benchmarks._loop import epochs_alone
from benchmarks._peer_job import Job
from benchmarks._pipelines import ANIMALS
from rediffuse.config.schema import Config
from rediffuse.lookup.build import build
from rediffuse.types import Denoiser, Prompt

TRAJECTORY = 50
"""Denoising steps of the samples that figures are scaled to."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device(setting: Setting) -> dict[str, Any]:
    """The card, its memory and the versions."""
    found = _meter.machine()
    if setting.device != "cpu":
        card = torch.cuda.get_device_properties(0)
        memory = card.total_memory / GIGABYTE
        found |= {"gpu": card.name, "gpu_gigabytes": memory, "cuda": torch.version.cuda}
    return found


def matmul(setting: Setting) -> dict[str, float]:
    """The rate of square matrix products in the network's precision, the best of three sizes."""
    rates = []
    for side in (setting.matmul_side // 4, setting.matmul_side // 2, setting.matmul_side):
        left, right = torch.randn(
            2, side, side, device=setting.device, dtype=DTYPES[setting.precision]
        )
        taken = setting.seconds(lambda left=left, right=right: left @ right)
        rates.append(2 * side**3 / taken / 1e12)
    return {"teraflop_per_second": max(rates)}


def flops(setting: Setting) -> dict[str, float]:
    """Teraflop of one image: of a denoising step, forward and with the backward pass, and of
    decoding. Recomputation of attention in its backward pass is not counted.
    """
    denoiser = _denoiser(setting)
    call = _call(denoiser, 1)
    latents = torch.zeros(1, *denoiser.latent_shape, device=setting.device)
    parameters = list(denoiser.parameters().values())
    with torch.no_grad():
        forward = _counted(call)
        decoding = _counted(lambda: denoiser.decode(latents, [Prompt("a cat")]))
    both = _counted(lambda: torch.autograd.grad(call().sum(), parameters, allow_unused=True))
    return {
        "forward_teraflop": forward,
        "forward_backward_teraflop": both,
        "decoding_teraflop": decoding,
    }


def loop(
    setting: Setting, rows: int | None, *, one_pass: bool = False, **model: Any
) -> dict[str, Any]:
    """The training loop with so many rows in a forward pass.

    Args:
        rows: Of sampling, decoding and training; None: as rediffuse chooses.
        one_pass: Whether gradients are computed while sampling.
        model: Over the options of the model.
    """
    images = rows or max(setting.rows)
    options: dict[str, Any] = {
        "prompts_per_epoch": images,
        "model": {**setting.model, **model},
        "sampler": {"name": "ddim", "num_steps": setting.steps},
        "algorithm": {"name": "ddpo_is", "advantage": "batch"},
    }
    if rows:
        options["micro_batch_size"] = rows
    if "one_pass" in {each.name for each in fields(Config)} and rows:
        options["one_pass"] = one_pass
    elif one_pass:
        return {"skipped": "this version computes no gradients while sampling"}
    with (
        tempfile.TemporaryDirectory() as folder,
        epochs_alone(options, Path(folder) / "run", _reward) as run,
    ):
        setting.forget_peak()
        epochs = [run.step() for _ in range(setting.epochs)][1:]
        peak, denoiser = setting.peak(), run.learner.policy.denoiser
        chosen = {
            name: min(run.config.rows_for(name), images * setting.steps)
            for name in ("sampling", "decoding", "training")
        }
        decoding = _decoding_seconds(setting, denoiser, min(chosen["decoding"], images))
    metrics = [dict(epoch.metrics) for epoch in epochs if epoch]
    sampling, training = (
        median(row[f"seconds_{phase}"] for row in metrics) / images
        for phase in ("sampling", "training")
    )
    return {
        "rows": chosen,
        "images": images,
        "steps_measured": setting.steps,
        **_scaled(setting, sampling, training, decoding),
        **peak,
    }


def peer(setting: Setting, rows: int) -> dict[str, Any]:
    """TRL's trainer with the same pipeline, batch and precision. Raises ModuleNotFoundError where
    it is not installed.
    """
    from benchmarks import _peer_trl

    prompts = setting.folder / "prompts.txt"
    prompts.write_text("\n".join(ANIMALS))
    job = Job(
        str(setting.model["source"]), "", str(prompts), rows, setting.steps, rows, 1, setting.epochs
    )
    trainer = _peer_trl.trainer_for(job, "no" if setting.precision == "fp32" else setting.precision)
    setting.forget_peak()
    times = []
    for epoch in range(setting.epochs):
        watch = _peer_trl.Stopwatch(setting.clock)
        generate, train = trainer._generate_samples, trainer._train_batched_samples
        trainer._generate_samples = watch.timed("sampling", generate)
        trainer._train_batched_samples = watch.timed("training", train)
        trainer.step(epoch, 0)
        trainer._generate_samples, trainer._train_batched_samples = generate, train
        times.append(watch.seconds)
    vae, latents = trainer.sd_pipeline.vae, watch.samples[0]["next_latents"][:, -1]
    with torch.no_grad():
        decoding = setting.seconds(lambda: vae.decode(latents.to(vae.dtype)).sample) / rows
    sampling, training = (
        median(each[phase] for each in times[1:]) / rows for phase in ("sampling", "training")
    )
    return {
        "rows": {"sampling": rows, "training": rows},
        "images": rows,
        "steps_measured": setting.steps,
        **_scaled(setting, sampling, training, decoding),
        **setting.peak(),
    }


def network(
    setting: Setting,
    rows: int,
    *,
    channels_last: bool = True,
    precision: str | None = None,
    tf32: bool = False,
    compiled: bool = False,
) -> dict[str, float]:
    """The network alone: seconds of a forward pass and of one with its backward pass."""
    model = {**setting.model, **({"precision": precision} if precision else {})}
    denoiser = _denoiser(setting, model)
    call, inner = _replay(setting, denoiser, rows, model, channels_last=channels_last)
    parameters = list(denoiser.parameters().values())
    if compiled:
        inner.compile(dynamic=False)
    with _tf32(tf32):
        began = setting.clock()
        with torch.no_grad():
            forward = setting.seconds(call)
        both = setting.seconds(
            lambda: torch.autograd.grad(call().float().sum(), parameters, allow_unused=True)
        )
    return {
        "rows": rows,
        "forward_seconds": forward / rows,
        "forward_backward_seconds": both / rows,
        "seconds_with_warming_up": setting.clock() - began,
    }


def graph(setting: Setting, rows: int) -> dict[str, float]:
    """A forward pass of the network, captured as a CUDA graph and replayed."""
    denoiser = _denoiser(setting)
    call, _ = _replay(setting, denoiser, rows, setting.model)
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(captured, stream=stream):
        call()
    return {"rows": rows, "forward_seconds": setting.seconds(captured.replay) / rows}


def _scaled(
    setting: Setting, sampling: float, training: float, decoding: float
) -> dict[str, float]:
    """Returns the figures for whole trajectories; arguments are seconds per image."""
    factor = TRAJECTORY / setting.steps
    sampling = (sampling - decoding) * factor + decoding
    training *= factor
    return {
        "decoding_seconds": decoding,
        "sampling_images_per_second": 1 / sampling,
        "training_images_per_second": 1 / training if training else 0.0,
        "images_per_second": 1 / (sampling + training),
    }


def _reward(samples: Tensor, prompts: Any) -> Tensor:
    return samples.flatten(1).float().mean(1)


def _denoiser(setting: Setting, model: Mapping[str, Any] | None = None) -> Denoiser:
    loaded: Denoiser = build("model", dict(model or setting.model)).load(setting.device, 0)
    return loaded


def _call(denoiser: Denoiser, rows: int) -> Callable[[], Tensor]:
    """Returns a call of the denoiser with so many rows, with guidance if it has any."""
    conditioning = denoiser.encode([Prompt(ANIMALS[n % len(ANIMALS)]) for n in range(rows)])
    state = torch.randn(rows, *denoiser.latent_shape, device=denoiser.device)
    time = denoiser.schedule.steps(4).times[:1].expand(rows).to(denoiser.device)
    return lambda: denoiser.predict(state, time, conditioning)


def _replay(
    setting: Setting,
    denoiser: Any,
    rows: int,
    model: Mapping[str, Any],
    *,
    channels_last: bool = True,
) -> tuple[Callable[[], Tensor], Any]:
    """Returns a call of the denoiser's network alone with the arguments that it is given, and the
    network.
    """
    inner, seen = denoiser.network, {}

    def keep(_: Any, args: Any, kwargs: Any) -> None:
        seen.update(args=args, kwargs=kwargs)

    hook = inner.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        _call(denoiser, rows)()
    hook.remove()
    args = seen["args"]
    if not channels_last:
        inner.to(memory_format=torch.contiguous_format)
        args = tuple(each.contiguous() for each in args)
    dtype = DTYPES[str(model.get("precision", "fp32"))]

    def mixed() -> Any:
        # what autocast remembers would not outlive the capture of a graph
        cast = dtype != torch.float32
        return torch.autocast(setting.device, dtype, cache_enabled=False) if cast else nullcontext()

    def call() -> Tensor:
        with mixed():
            output: Tensor = inner(*args, **seen["kwargs"])[0]
        return output

    return call, inner


def _decoding_seconds(setting: Setting, denoiser: Denoiser, rows: int) -> float:
    latents = torch.zeros(rows, *denoiser.latent_shape, device=setting.device)
    prompts = [Prompt("a cat")] * rows
    with torch.no_grad():
        return setting.seconds(lambda: denoiser.decode(latents, prompts)) / rows


def _counted(call: Callable[[], Any]) -> float:
    # not every kernel of attention has a formula; the products that the plain one is made of do
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e12


@contextmanager
def _tf32(on: bool) -> Iterator[None]:
    """Inside, fp32 products and convolutions may use TF32, or may not."""
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [each.allow_tf32 for each in switches]
    for each in switches:
        each.allow_tf32 = on
    try:
        yield
    finally:
        for each, value in zip(switches, before, strict=True):
            each.allow_tf32 = value
