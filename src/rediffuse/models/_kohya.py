"""LoRA files in the layout of kohya's sd-scripts, which ComfyUI and the A1111 web UI read."""

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

PREFIX = "lora_unet_"
FACTORS = {"lora_A": "lora_down", "lora_B": "lora_up"}
WIDTH_OF_SD2 = 1024
"""Of the text embeddings that a U-Net of Stable Diffusion 2.x attends to; those of 1.x are 768
wide.
"""


def tensors(lora: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The file's tensors.

    Args:
        lora: peft's state dict of one adapter of a U-Net, `MODULE.lora_A.weight` and
            `MODULE.lora_B.weight`.
        alpha: of every module; what is added to a weight is alpha / rank times B A.
    """
    found: dict[str, Tensor] = {}
    for key, value in lora.items():
        module, factor, _ = key.rsplit(".", 2)
        name = PREFIX + module.replace(".", "_")
        found[f"{name}.{FACTORS[factor]}.weight"] = value.detach().cpu().contiguous()
        found[f"{name}.alpha"] = torch.tensor(float(alpha))
    return found


def metadata(unet: UNet2DConditionModel, rank: int, alpha: float) -> dict[str, str]:
    """What tools read besides: A1111 takes a file for Stable Diffusion 1.x unless `ss_v2` says
    otherwise.
    """
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{float(alpha)}",
        "ss_v2": str(unet.config.cross_attention_dim == WIDTH_OF_SD2),
    }
