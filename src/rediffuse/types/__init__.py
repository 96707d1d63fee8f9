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
    ModelCard,
    Passes,
    Prompt,
    Rollout,
    Trajectory,
    Transitions,
    Weights,
)
from rediffuse.types.models import (
    Converts,
    Denoiser,
    Guided,
    HasModelCard,
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
    Renders,
    Reward,
    RewardFamily,
)

__all__ = [
    "Algorithm",
    "Batch",
    "CleanSamples",
    "Conditioning",
    "Converts",
    "Denoiser",
    "EncodedSamples",
    "Guided",
    "HasFeatures",
    "HasModelCard",
    "HasPrecision",
    "HasRatio",
    "Judgement",
    "ListsPrompts",
    "Loss",
    "Metrics",
    "Modality",
    "ModelCard",
    "ModelFamily",
    "Passes",
    "Policy",
    "Prompt",
    "PromptSet",
    "ReadsTokens",
    "Remembers",
    "Renders",
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
