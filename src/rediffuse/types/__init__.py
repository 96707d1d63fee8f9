"""The nouns of the house.

Shapes: B trajectories in this process, T denoising steps, K of them random, N rows of any choice of
(trajectory, step), *L one latent. Step 0 leaves pure noise, step T-1 arrives at the clean latent.
"""

from rediffuse.types.algorithms import Algorithm, HasRatio, Remembers, Selects
from rediffuse.types.data import (
    Batch,
    CleanSamples,
    Conditioning,
    EncodedSamples,
    Judgement,
    Loss,
    Metrics,
    Passes,
    Prompt,
    Rollout,
    Trajectory,
    Transitions,
    Weights,
)
from rediffuse.types.models import (
    Denoiser,
    Guided,
    HasPrecision,
    Modality,
    ModelFamily,
    Policy,
    ReadsTokens,
    Sampler,
    SamplerFamily,
)
from rediffuse.types.rewards import (
    HasFeatures,
    ListsPrompts,
    PromptSet,
    Reward,
    RewardFamily,
)

__all__ = [
    "Algorithm",
    "Batch",
    "CleanSamples",
    "Conditioning",
    "Denoiser",
    "EncodedSamples",
    "Guided",
    "HasFeatures",
    "HasPrecision",
    "HasRatio",
    "Judgement",
    "ListsPrompts",
    "Loss",
    "Metrics",
    "Modality",
    "ModelFamily",
    "Passes",
    "Policy",
    "Prompt",
    "PromptSet",
    "ReadsTokens",
    "Remembers",
    "Reward",
    "RewardFamily",
    "Rollout",
    "Sampler",
    "SamplerFamily",
    "Selects",
    "Trajectory",
    "Transitions",
    "Weights",
]
