"""The data types and protocols that all parts of the library share.

Letters in shapes: B samples of this process, T denoising steps, K of them random, N training rows
(each a sample at one step or time), *L the shape of a latent, *S the shape of a sample. Step 0
starts from pure noise; step T-1 ends at the clean latent.
"""

from rediffuse.types.abilities import (
    Converts,
    GradientRecord,
    Guided,
    HasModelCard,
    HasPrecision,
    HasSampleGradients,
    Merges,
    PreparesPrompts,
    ReadsTokens,
)
from rediffuse.types.algorithms import Algorithm, HasRatio, HasScores, Remembers, Selects
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
    Transitions,
    TransitionsWithMeans,
    Weights,
)
from rediffuse.types.first_update import FirstUpdate
from rediffuse.types.models import (
    Denoiser,
    HasCosts,
    Modality,
    ModelFamily,
    Policy,
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
from rediffuse.types.rollouts import Rollout, Trajectory

__all__ = [
    "Algorithm",
    "Batch",
    "CleanSamples",
    "Conditioning",
    "Converts",
    "Denoiser",
    "EncodedSamples",
    "FirstUpdate",
    "GradientRecord",
    "Guided",
    "HasCosts",
    "HasFeatures",
    "HasModelCard",
    "HasPrecision",
    "HasRatio",
    "HasSampleGradients",
    "HasScores",
    "Judgement",
    "ListsPrompts",
    "Loss",
    "Merges",
    "Metrics",
    "Modality",
    "ModelCard",
    "ModelFamily",
    "Passes",
    "Policy",
    "PreparesPrompts",
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
    "TransitionsWithMeans",
    "Weights",
]
