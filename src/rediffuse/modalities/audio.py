"""Sound: waveforms (B, C, N) in [-1, 1], saved as 16-bit WAV."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rediffuse.config.schema import PositiveInt
from rediffuse.deferred import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Audio"]

LOUDEST = 32767
"""The 16-bit integer that an amplitude of 1 is saved as."""
SIDE = 64
"""The width and height of a preview in pixels."""
QUIETEST_DECIBELS = -80.0
"""The level that a spectrogram shows as black, in decibels."""


@dataclass(frozen=True)
class Audio:
    """Waveforms (B, C, N) in [-1, 1], with C channels of N values.

    Attributes:
        sample_rate: Values of a channel per second, in hertz.
    """

    sample_rate: PositiveInt = 16_000
    name = "audio"
    suffix = ".wav"

    def preview(self, samples: Tensor) -> Tensor:
        """Returns spectrograms (B, 3, 64, 64) in [0, 1] of the mean over the channels.

        Time runs from left to right, frequency from bottom to top; louder is brighter.
        """
        mono, bins = samples.mean(1), 2 * SIDE
        hop = max(1, mono.shape[1] // SIDE)
        padded = torch.nn.functional.pad(mono, (bins // 2, bins // 2 + hop))
        spectrum = torch.stft(
            padded, bins, hop, window=torch.hann_window(bins), center=False, return_complex=True
        )
        decibels = 20 * (spectrum.abs() / (bins / 4)).clamp_min(1e-9).log10()
        shown = (1 - decibels / QUIETEST_DECIBELS).clamp(0, 1)[:, :SIDE, :SIDE].flip(1)
        shown = torch.nn.functional.pad(shown, (0, SIDE - shown.shape[2]))
        known = samples.isfinite().flatten(1).all(1).view(-1, 1, 1)
        return shown.where(known, torch.nan)[:, None].expand(-1, 3, -1, -1)

    def quantized(self, samples: Tensor) -> Tensor:
        return (samples.clamp(-1, 1) * LOUDEST).round() / LOUDEST

    def save(self, sample: Tensor, stem: Path) -> None:
        """Saves a WAV file; waveform values that are not finite become 0."""
        values = (self.quantized(sample.nan_to_num(0)) * LOUDEST).round().to(torch.int16)
        with wave.open(str(stem.with_suffix(self.suffix)), "wb") as file:
            file.setnchannels(len(sample))
            file.setsampwidth(2)
            file.setframerate(self.sample_rate)
            file.writeframes(values.T.contiguous().numpy().astype("<i2").tobytes())
