"""LoRA files in the layout of kohya's sd-scripts, which ComfyUI and the A1111 web UI read."""

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

PREFIX = "lora_unet_"
FACTORS = {"lora_A": "lora_down", "lora_B": "lora_up"}
WIDTH_OF_SD2 = 1024
"""The width of the text embeddings of Stable Diffusion 2.x; those of 1.x have 768 elements."""


def tensors(lora: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Returns the tensors of the file, by name.

    Args:
        lora: peft's state dict of one adapter of a U-Net, with `MODULE.lora_A.weight` and
            `MODULE.lora_B.weight`.
        alpha: The scale of every module: alpha / rank times B A is added to its weight.
    """
    found: dict[str, Tensor] = {}
    for key, value in lora.items():
        module, factor, _ = key.rsplit(".", 2)
        name = PREFIX + module.replace(".", "_")
        found[f"{name}.{FACTORS[factor]}.weight"] = value.detach().cpu().contiguous()
        found[f"{name}.alpha"] = torch.tensor(float(alpha))
    return found


def metadata(unet: UNet2DConditionModel, rank: int, alpha: float) -> dict[str, str]:
    """Returns the metadata of the file. A1111 assumes Stable Diffusion 1.x unless `ss_v2` is
    "True".
    """
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{float(alpha)}",
        "ss_v2": str(unet.config.cross_attention_dim == WIDTH_OF_SD2),
    }
