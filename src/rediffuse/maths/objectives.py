"""Policy-gradient losses, one number for each row. All tensors have shape (N,)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """Returns PPO's clipped loss, as DDPO-IS uses it (Schulman et al. 2017, eq. 7; Black et al.
    2023, sec. 4.3).

    Args:
        log_ratio: Log-probability under the current policy minus that under the sampling policy.
        advantage: The advantage of each row.
        clip_range: The ratio is clipped to 1 ± clip_range.
    """
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, bounded * advantage)


def score_function(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Returns the REINFORCE loss of denoising steps (DDPO-SF; Williams 1992; Black et al. 2023,
    sec. 4.3).
    """
    return -log_prob * advantage
