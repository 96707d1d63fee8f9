"""Policy objectives, one number per row, to be minimised. All arguments and results are (N,)."""

import torch
from torch import Tensor


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """DDPO-IS: PPO's pessimistic surrogate (Schulman et al. 2017, eq. 7; Black et al. 2023, sec.
    4.3).
    """
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, bounded * advantage)


def score_function(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """DDPO-SF: REINFORCE over denoising steps (Williams 1992; Black et al. 2023, sec. 4.3)."""
    return -log_prob * advantage
