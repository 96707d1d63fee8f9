"""What both trainings share: one process per core, averaged gradients, resumable state without pickle."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

RANK = int(os.environ.get("RANK", 0))
WORLD = int(os.environ.get("WORLD_SIZE", 1))


def start(seed: int) -> None:
    """One thread per process: at these sizes more threads are slower (measured: 18 against 45 images a second)."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    if WORLD > 1:
        dist.init_process_group("gloo")


class Trainable:
    """Named parameters with AdamW, a moving average of them, and a step count; saved and resumed as safetensors."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        betas: tuple[float, float],
        weight_decay: float,
        ema_decay: float,
    ) -> None:
        self.parameters = dict(parameters)
        self.ema = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.ema_decay = ema_decay
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), betas=betas, weight_decay=weight_decay
        )
        self.steps = 0

    def step(self, loss: Tensor, learning_rate: float) -> None:
        loss.backward()
        values = list(self.parameters.values())
        gradients = torch.cat(
            [torch.zeros_like(v).flatten() if v.grad is None else v.grad.flatten() for v in values]
        )
        if WORLD > 1:
            dist.all_reduce(gradients)
            gradients /= WORLD
        for value, part in zip(values, gradients.split([v.numel() for v in values]), strict=True):
            value.grad = part.view_as(value)
        nn.utils.clip_grad_norm_(values, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        decay = min(self.ema_decay, (1 + self.steps) / (10 + self.steps))
        averages = list(self.ema.values())
        torch._foreach_lerp_(averages, [v.detach() for v in values], 1 - decay)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"value/{name}": value.detach() for name, value in self.parameters.items()}
        tensors |= {f"ema/{name}": value for name, value in self.ema.items()}
        for name, value in self.parameters.items():
            for key, moment in self.optimizer.state[value].items():
                tensors[f"{key}/{name}"] = moment
        save_file(
            {key: value.contiguous() for key, value in tensors.items()}, folder / "training.new"
        )
        os.replace(folder / "training.new", folder / "training.safetensors")

    def resume(self, folder: Path) -> None:
        if not (folder / "training.safetensors").exists():
            return
        tensors = load_file(folder / "training.safetensors")
        self.steps = int(tensors[f"step/{next(iter(self.parameters))}"])
        for name, value in self.parameters.items():
            value.data.copy_(tensors[f"value/{name}"])
            self.ema[name].copy_(tensors[f"ema/{name}"])
            self.optimizer.state[value] = {
                key: tensors[f"{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }


def trapezoid(step: int, num_steps: int, peak: float, warmup: int, decay_share: float) -> float:
    """Up, level, and down to nearly nothing over the last share of the steps."""
    left = (num_steps - step) / (num_steps * decay_share)
    return peak * min(1.0, (step + 1) / warmup, max(left, 0.01))
