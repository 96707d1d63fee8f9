"""The options that model families share. This module imports nothing slow, so that options are
checked early.
"""

from dataclasses import dataclass
from typing import Literal

from rediffuse.config.schema import Method, Positive, PositiveInt, Text


@dataclass(frozen=True)
class TrainingOptions:
    """What of a network is trained, and its precision.

    Attributes:
        train: What is trained: a LoRA adapter of the network, or all of its weights.
        lora_rank: The rank of the adapter.
        lora_alpha: The scale of the adapter; None: the rank, a choice that all tools that read the
            file interpret in the same way.
        lora_targets: The names of the adapted modules, or the ends of their names. The attention
            projections are the usual choice, also of peft and the paper's code.
        precision: The precision of the networks. Latents, log-probabilities and trained parameters
            are fp32 in any case.
        gradient_checkpointing: Whether activations are recomputed in the backward pass instead of
            stored, which saves memory; or the names of the blocks that do so, such as
            [down_blocks.0, up_blocks.3]. The gradient is the same.
        quantize: Holds the weights of the linear layers, convolutions excepted, in 8 bits (int8) or
            4 (nf4), under an adapter in fp32. It needs the extra `bnb`, and changes what the
            pretrained model predicts; see docs/precision.md.
    """

    train: Method[Literal["lora", "full"]] = "lora"
    lora_rank: Method[PositiveInt] = 4
    lora_alpha: Method[Positive | None] = None
    lora_targets: Method[tuple[Text, ...]] = ("to_q", "to_k", "to_v", "to_out.0")
    precision: Method[Literal["fp32", "bf16", "fp16"]] = "fp32"
    gradient_checkpointing: Method[bool | tuple[Text, ...]] = False
    quantize: Method[Literal["int8", "nf4"] | None] = None


@dataclass(frozen=True)
class LatentDiffusionOptions(TrainingOptions):
    """The options of latent diffusion models.

    Attributes:
        guidance_scale: The scale of classifier-free guidance, in sampling and in training (for
            regression see algorithm.guided); 1 disables it.
        size_pixels: The width and height of the images; None: as the model was trained.
        tile_pixels: The width and height of the tiles in which images are decoded and encoded;
            None: as a whole. Tiles bound the memory that this takes. They overlap and are blended,
            but each has the statistics of its own part of the image: pixels differ everywhere, and
            with them rewards.
    """

    guidance_scale: Positive = 5.0
    size_pixels: PositiveInt | None = None
    tile_pixels: PositiveInt | None = None
