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
