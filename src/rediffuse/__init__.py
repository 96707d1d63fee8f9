"""Rediffuse fine-tunes diffusion models with reinforcement learning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rediffuse.callbacks.protocol import Callback, Epoch
    from rediffuse.config.schema import Config
    from rediffuse.maths.gaussian import Gaussian
    from rediffuse.start import begin, reopen, resume, train
    from rediffuse.trainer import Run
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
    "rediffuse.callbacks.protocol": ["Callback", "Epoch"],
    "rediffuse.config.schema": ["Config"],
    "rediffuse.maths.gaussian": ["Gaussian"],
    "rediffuse.start": ["begin", "reopen", "resume", "train"],
    "rediffuse.trainer": ["Run"],
    "rediffuse.types": [
        "Algorithm", "CleanSamples", "Denoiser", "Loss", "Policy", "Prompt", "PromptSet", "Reward",
        "Rollout", "Sampler", "Trajectory", "Transitions",
    ],
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Algorithm", "Callback", "CleanSamples", "Config", "Denoiser", "Epoch", "Gaussian", "Loss",
    "Policy", "Prompt", "PromptSet", "Reward", "Rollout", "Run", "Sampler", "Trajectory",
    "Transitions", "begin", "reopen", "resume", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imported where used: `import rediffuse` itself needs no torch."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'rediffuse' has no attribute {name!r}")
