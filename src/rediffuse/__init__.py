"""Rediffuse fine-tunes diffusion models with reinforcement learning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse.config import Config
    from rediffuse.maths.gaussian import Gaussian
    from rediffuse.trainer import resume, train
    from rediffuse.types import (
        Algorithm,
        CleanSamples,
        Denoiser,
        Loss,
        Policy,
        Prompt,
        PromptSet,
        Reward,
        Rollout,
        Sampler,
        Trajectory,
        Transitions,
    )

__version__ = "0.1.0"
_HOMES = {
    "rediffuse.config": ["Config"],
    "rediffuse.maths.gaussian": ["Gaussian"],
    "rediffuse.trainer": ["resume", "train"],
    "rediffuse.types": [
        "Algorithm", "CleanSamples", "Denoiser", "Loss", "Policy", "Prompt", "PromptSet", "Reward", "Rollout", "Sampler",
        "Trajectory", "Transitions",
    ],
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Algorithm", "CleanSamples", "Config", "Denoiser", "Gaussian", "Loss", "Policy", "Prompt", "PromptSet", "Reward", "Rollout",
    "Sampler", "Trajectory", "Transitions", "resume", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imported where used: `import rediffuse` itself needs no torch."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rediffuse' has no attribute {name!r}")
