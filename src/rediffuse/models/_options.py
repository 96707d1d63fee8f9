"""The options that families share; light, so that they are checked before anything heavy is
imported.
"""

from dataclasses import dataclass
from typing import Literal

from rediffuse.config.schema import Method, Positive, PositiveInt, Text


@dataclass(frozen=True)
class TrainingOptions:
    """What of a network learns, and in what precision it computes.

    Attributes:
        train: a LoRA adapter of the network, or all of its weights.
        lora_alpha: None takes the rank, which every tool that reads the file agrees on.
        lora_targets: names of modules, or their ends; the attention projections are peft's and the
            paper code's usual.
        precision: of the networks; latents and log-probabilities are fp32 whatever it is, and so is
            what learns.
        gradient_checkpointing: compute activations twice instead of keeping them, for less memory.
    """

    train: Method[Literal["lora", "full"]] = "lora"
    lora_rank: Method[PositiveInt] = 4
    lora_alpha: Method[Positive | None] = None
    lora_targets: Method[tuple[Text, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    precision: Method[Literal["fp32", "bf16", "fp16"]] = "fp32"
    gradient_checkpointing: Method[bool] = False


@dataclass(frozen=True)
class LatentDiffusionOptions(TrainingOptions):
    """The options that latent diffusion models share.

    Attributes:
        guidance_scale: of classifier-free guidance, in sampling and in training alike (regression:
            algorithm.guided); 1 is none.
        size_pixels: of one side of the images; None: as the model was trained.
    """

    guidance_scale: Positive = 5.0
    size_pixels: PositiveInt | None = None
