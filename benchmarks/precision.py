"""Measures how far log-probabilities of the same transitions move by precision, guidance and rows
in a forward pass, before any update, and the noise of log-ratios after one.

python benchmarks/precision.py [MODEL …]: of the embedded model, and of the classes of Stable
Diffusion 1.5, Stable Diffusion 3 and FLUX with random weights. Adds its rows to
benchmarks/results/precision.json.
"""

import json
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rediffuse.maths.schedules import Discrete, Flow, NoiseSchedule, noised, shifted
from rediffuse.models._master_weights import compute_in_network_precision
from rediffuse.models.emoji import Emoji
from rediffuse.samplers.ddim import DDIM
from rediffuse.types import Prompt, Sampler

RESULTS = Path(__file__).parent / "results" / "precision.json"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CLIP_RANGE = 1e-4
OTHER_KERNELS: list[bool] = []
LEARNING_RATE = 3e-4
"""Also the size of Adam's first step, in each weight."""
ADAPTED = ["to_q", "to_k", "to_v", "to_out.0"]


@dataclass(frozen=True)
class Subject:
    """A network and how it is called.

    Attributes:
        network: In fp32.
        last: The name of its last layer.
        shape: Of one latent.
        schedule: Of its states.
        call: Gives the output for (network, states, times, inputs).
        inputs: What it sees besides, one row for each sample.
        without: The same without a prompt, for guidance.
        precisions: Those that are quick enough.
        num_rows: Of a sampling pass.
        training_rows: Of a training pass.
        num_steps: Of a trajectory.
        chosen: The steps that are measured.
    """

    network: nn.Module
    last: str
    shape: tuple[int, ...]
    schedule: NoiseSchedule
    call: Callable[[nn.Module, Tensor, Tensor, Sequence[Tensor]], Tensor]
    inputs: Sequence[Tensor]
    without: Sequence[Tensor]
    precisions: Sequence[str] = ("fp32", "bf16")
    num_rows: int = 4
    training_rows: Sequence[int] = (1, 2, 4)
    num_steps: int = 50
    chosen: Sequence[int] = (14, 38)


def main() -> None:
    torch.set_num_threads(1)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for name in sys.argv[1:] or list(SUBJECTS):
        rows = measured(name, SUBJECTS[name]())
        known = [row for row in known if row["model"] != name] + rows
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    columns = list(known[0])
    print("  ".join(columns))
    for row in known:
        print("  ".join(shown(row.get(column, "")) for column in columns))


@torch.no_grad()
def measured(name: str, subject: Subject) -> list[dict[str, Any]]:
    """Returns a row for each precision and guidance scale."""
    generator = torch.Generator().manual_seed(0)
    scaled_to_unit_outputs(subject, generator)
    network, rows, exact = adapted(subject.network), [], {}
    for precision in subject.precisions:
        began = cpu_seconds()
        network = in_precision(network, DTYPES[precision])
        for guidance in (1.0, 5.0):
            row = Case(subject, network, DTYPES[precision], guidance).row()
            exact.setdefault(guidance, row["ratios"])
            noise = rms(row.pop("ratios") - exact[guidance])
            wide_noise = rms(row.pop("wide_ratios") - exact[guidance])
            rows.append(
                {
                    "model": name,
                    "elements": torch.Size(subject.shape).numel(),
                    "precision": precision,
                    "guidance": guidance,
                    **row,
                    "update_noise": noise,
                    "update_noise_last_fp32": wide_noise,
                }
            )
        print(name, precision, f"{cpu_seconds() - began:.0f} CPU-seconds", flush=True)
    return rows


@dataclass(frozen=True)
class Case:
    """A network in one precision, with one guidance scale."""

    subject: Subject
    network: nn.Module
    dtype: torch.dtype
    guidance: float

    @cached_property
    def steps(self) -> Sampler:
        return DDIM(num_steps=self.subject.num_steps).bind(self.subject.schedule)

    def row(self) -> dict[str, Any]:
        """Returns the drifts of one pass of sampling rows against passes of other rows."""
        subject = self.subject
        drifts = {rows: [] for rows in subject.training_rows}
        stored, kernels, wide_kernels, ratios, wide_ratios = [], [], [], [], []
        for step in subject.chosen:
            transition = self.transition(step)
            old = self.log_prob(transition)
            for rows, found in drifts.items():
                found.append(self.log_prob(transition, rows) - old)
            state, after = (each.to(torch.bfloat16).float() for each in transition[1:])
            stored.append(self.log_prob((step, state, after)) - old)
            with other_kernels():
                kernels.append(self.log_prob(transition) - old)
            with updated(self.network):
                ratios.append(self.log_prob(transition) - old)
            with wide_last_layer(self.network, subject.last):
                old = self.log_prob(transition)
                with other_kernels():
                    wide_kernels.append(self.log_prob(transition) - old)
                with updated(self.network):
                    wide_ratios.append(self.log_prob(transition) - old)
        log_ratios = torch.stack(ratios)
        return {
            "sampling_rows": subject.num_rows,
            **{f"drift_rows_{rows}": most(found) for rows, found in drifts.items()},
            "drift_kernels": most(kernels),
            "drift_kernels_last_fp32": most(wide_kernels),
            "drift_stored_bf16": most(stored),
            "update_rms": log_ratios.square().mean().sqrt().item(),
            "update_clipped": (log_ratios.abs() > CLIP_RANGE).float().mean().item(),
            "ratios": log_ratios,
            "wide_ratios": torch.stack(wide_ratios),
        }

    def transition(self, step: int) -> tuple[int, Tensor, Tensor]:
        """Returns a step, states of unit variance and the states drawn after them."""
        subject, generator = self.subject, torch.Generator().manual_seed(step)
        clean, noise, drawn = torch.randn(3, subject.num_rows, *subject.shape, generator=generator)
        times = self.steps.times[torch.full((subject.num_rows,), step)]
        state = noised(clean, noise, subject.schedule.level(times).like(clean))
        law = self.law(step, state, subject.num_rows, 0)
        return step, state, law.sample(drawn)

    def log_prob(self, transition: tuple[int, Tensor, Tensor], rows: int | None = None) -> Tensor:
        """Returns the log-probabilities, shape (num_rows,), in passes of `rows`; None: in one."""
        step, state, after = transition
        rows = rows or len(state)
        parts = zip(state.split(rows), after.split(rows), strict=True)
        found = [
            self.law(step, here, len(here), begin * rows).log_prob(there)
            for begin, (here, there) in enumerate(parts)
        ]
        return torch.cat(found)

    def law(self, step: int, state: Tensor, rows: int, begin: int) -> Any:
        number = torch.full((rows,), step)
        time = self.steps.times[number].float()
        part = slice(begin, begin + rows)
        seen = [each[part] for each in self.subject.inputs]
        x = state
        if self.guidance != 1:
            without = [each[part] for each in self.subject.without]
            seen = [torch.cat(both) for both in zip(without, seen, strict=True)]
            x, time = torch.cat([x, x]), torch.cat([time, time])
        x = x.to(self.dtype)
        if x.ndim == 4 and not OTHER_KERNELS:
            x = x.contiguous(memory_format=torch.channels_last)
        seen = [each.to(self.dtype) for each in seen]
        output = self.subject.call(self.network, x, time, seen).float()
        if self.guidance != 1:
            output = torch.lerp(*output.chunk(2), self.guidance)
        return self.steps.step(output, state, number)


@contextmanager
def other_kernels() -> Iterator[None]:
    """For a while, attention and convolutions are computed in other orders, as on a GPU in passes
    of other sizes.
    """
    OTHER_KERNELS.append(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        OTHER_KERNELS.pop()


class wide_last_layer:  # noqa: N801
    """Computes the last layer in fp32 for a while."""

    def __init__(self, network: nn.Module, name: str) -> None:
        self.network, self.name = network, name
        self.layer = getattr(network, name)

    def __enter__(self) -> None:
        setattr(self.network, self.name, Wide(self.layer))

    def __exit__(self, *_: object) -> None:
        setattr(self.network, self.name, self.layer.to(self.dtype_before))

    @property
    def dtype_before(self) -> torch.dtype:
        return next(
            each.dtype for name, each in self.network.named_parameters() if "lora" not in name
        )


class Wide(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.float()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.float())


class updated:  # noqa: N801
    """Adds Adam's first step to the adapter for a while: the learning rate, with random signs."""

    def __init__(self, network: nn.Module) -> None:
        generator = torch.Generator().manual_seed(1)
        self.steps = [
            (each, LEARNING_RATE * torch.randn(each.shape, generator=generator).sign())
            for name, each in network.named_parameters()
            if "lora" in name
        ]
        self.before = [each.clone() for each, _ in self.steps]

    def __enter__(self) -> None:
        for parameter, step in self.steps:
            parameter += step

    def __exit__(self, *_: object) -> None:
        for (parameter, _), before in zip(self.steps, self.before, strict=True):
            parameter.copy_(before)


def adapted(network: nn.Module) -> nn.Module:
    config = LoraConfig(r=4, lora_alpha=4, target_modules=ADAPTED, init_lora_weights="gaussian")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return inject_adapter_in_model(config, network.requires_grad_(False)).eval()


def in_precision(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Rounds the frozen weights; the adapter stays fp32."""
    for name, parameter in network.named_parameters():
        if "lora" not in name:
            parameter.data = parameter.data.to(dtype)
    if dtype != torch.float32:
        compute_in_network_precision(network)
    return network


def scaled_to_unit_outputs(subject: Subject, generator: torch.Generator) -> None:
    """Scales the last layer of a network with random weights, as if it predicted noise."""
    x = torch.randn(1, *subject.shape, generator=generator)
    time = torch.full((1,), 500.0 if isinstance(subject.schedule, Discrete) else 0.5)
    with torch.no_grad():
        output = subject.call(subject.network, x, time, [each[:1] for each in subject.inputs])
        last = getattr(subject.network, subject.last)
        for parameter in last.parameters():
            parameter /= output.std()


def emoji() -> Subject:
    denoiser = Emoji(guidance_scale=5.0, lora_rank=4, lora_targets=("to_q",)).load("cpu", 0)
    with torch.no_grad():
        texts = denoiser.encode([Prompt(text) for text in PROMPTS])["text"]
        nothing = denoiser.encode([Prompt("")] * len(PROMPTS))["text"]
    network = UNet2DConditionModel.from_config(denoiser.unet.config)
    plain = {
        name.replace(".base_layer", ""): value
        for name, value in denoiser.unet.state_dict().items()
        if "lora" not in name
    }
    network.load_state_dict(plain)
    return Subject(
        network,
        "conv_out",
        denoiser.latent_shape,
        denoiser.schedule,
        unet,
        [texts],
        [nothing],
        ("fp32", "bf16", "fp16"),  # fp16 takes ten times as long
        num_rows=8,
        training_rows=(1, 2, 4, 8),
        chosen=(2, 14, 26, 38, 47),
    )


def stable_diffusion_15() -> Subject:
    """Latents of 16 x 16, those of 128 pixels, two steps and two rows, for a CPU's sake."""
    torch.manual_seed(0)
    texts, nothing = torch.randn(2, 2, 77, 768)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    schedule = Discrete((1 - betas).cumprod(0), 1 - 0.00085, steps_offset=1)
    return Subject(
        UNet2DConditionModel(cross_attention_dim=768).to(memory_format=torch.channels_last),
        "conv_out",
        (4, 16, 16),
        schedule,
        unet,
        [texts],
        [nothing],
        num_rows=2,
        training_rows=(1, 2),
    )


def stable_diffusion_3() -> Subject:
    """Six blocks of SD3.5 medium's kind, 16 x 32 x 32 latents."""
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=32,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=128,
        caption_projection_dim=256,
        pooled_projection_dim=64,
        pos_embed_max_size=32,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )

    def call(network: nn.Module, x: Tensor, time: Tensor, seen: Sequence[Tensor]) -> Tensor:
        output: Tensor = network(x, seen[0], seen[1], 1000 * time).sample
        return output

    texts, nothing = torch.randn(2, 4, 77, 128)
    pooled, empty = torch.randn(2, 4, 64)
    return Subject(
        network, "proj_out", (16, 32, 32), flow(3.0), call, [texts, pooled], [nothing, empty]
    )


def flux() -> Subject:
    """Three double and six single blocks, 256 tokens of 64 numbers, as 16 x 32 x 32 latents."""
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        num_layers=3,
        num_single_layers=6,
        attention_head_dim=32,
        num_attention_heads=8,
        joint_attention_dim=128,
        pooled_projection_dim=64,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(16.0), torch.arange(16.0))

    def call(network: nn.Module, x: Tensor, time: Tensor, seen: Sequence[Tensor]) -> Tensor:
        output: Tensor = network(
            x, seen[0], seen[1], time.to(x.dtype), img_ids=ids, txt_ids=torch.zeros(64, 3)
        ).sample
        return output

    texts, nothing = torch.randn(2, 4, 64, 128)
    pooled, empty = torch.randn(2, 4, 64)
    return Subject(
        network, "proj_out", (256, 64), flow(3.0), call, [texts, pooled], [nothing, empty]
    )


def unet(network: nn.Module, x: Tensor, time: Tensor, seen: Sequence[Tensor]) -> Tensor:
    output: Tensor = network(x, time, seen[0]).sample
    return output


def flow(shift: float) -> Flow:
    return Flow(lambda num_steps: shifted(torch.linspace(1, 0, num_steps + 1), shift))


def most(drifts: Sequence[Tensor]) -> float:
    return torch.stack([*drifts]).abs().max().item()


def rms(values: Tensor) -> float:
    return values.square().mean().sqrt().item()


def shown(value: Any) -> str:
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


PROMPTS = ("a cat", "a dog", "a rose", "a train", "two pizzas", "a bird", "a red car", "a star")
SUBJECTS = {
    "emoji": emoji,
    "SD3 class": stable_diffusion_3,
    "FLUX class": flux,
    "SD1.5 architecture": stable_diffusion_15,
}

if __name__ == "__main__":
    main()
