"""Sampling: turns prompts into samples and the trajectories that lead to them."""

from rediffuse.rollout.collecting import Also, arrived, collect, sampled
from rediffuse.rollout.denoising import Draws, denoise

__all__ = ["Also", "Draws", "arrived", "collect", "denoise", "sampled"]
