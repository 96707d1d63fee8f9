"""The data types and protocols that all parts of the library share.

Letters in shapes: B samples of this process, T denoising steps, K of them random, N training rows
(each a sample at one step or time), *L the shape of a latent, *S the shape of a sample. Step 0
starts from pure noise; step T-1 ends at the clean latent.
"""

from rediffuse.types.algorithms import Algorithm, HasRatio, Remembers, Selects
from rediffuse.types.data import (
    Batch,
    CleanSamples,
    Conditioning,
    EncodedSamples,
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
    HasCosts,
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
    Judgement,
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
    "HasCosts",
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
