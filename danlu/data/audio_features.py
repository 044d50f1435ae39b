"""Sound to frames of numbers: log spectrogram, log-mel, MFCC. B sounds, N samples, T frames, F bins, K FFT bins.

Frame t of a sound is centred on sample t * hop; beyond the ends of the sound there is silence. So a sound's frames do not
depend on what it is padded to.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.errors import UserError
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
FLOOR = 1e-8
"""Added to every power before the logarithm: that of a sound 80 dB below full scale, spread over the spectrum."""


class Spectrum(Settings):
    """How sound becomes frames."""

    form: Literal["log_mel", "mfcc", "log_spectrogram"] = "log_mel"
    """log_mel: log power in triangular bands, evenly spaced on the mel scale. mfcc: the first coefficients of its cosine
    transform (Davis and Mermelstein 1980). log_spectrogram: log power of every FFT bin."""
    window: Annotated[float, Field(gt=0, le=1)] = 0.025
    """Seconds of sound that a frame sees, under a Hann window."""
    hop: Annotated[float, Field(gt=0, le=1)] = 0.010
    """Seconds from frame to frame."""
    n_mels: Annotated[int, Field(ge=2, le=512)] = 40
    """Bands, of log_mel and mfcc."""
    n_coefficients: Annotated[int, Field(ge=2, le=512)] = 13
    """Numbers of a frame, of mfcc; at most n_mels."""
    low: Annotated[float, Field(ge=0)] = 20.0
    """Lower end of the lowest band, in Hz."""
    high: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Upper end of the highest band, in Hz. auto: half the sample rate."""

    def check(self, rate: int) -> None:
        """Refuse what cannot be at this rate."""
        if self.form == "mfcc" and self.n_coefficients > self.n_mels:
            raise UserError(
                "data.spectrum.n_coefficients",
                f"must be at most n_mels, which is {self.n_mels}",
                got=self.n_coefficients,
            )
        if self.form != "log_spectrogram" and not self.low < self.top(rate) <= rate / 2:
            raise UserError(
                "data.spectrum.high",
                f"must lie above data.spectrum.low and at most at {rate / 2:g} Hz",
                got=self.top(rate),
            )
        if self.form != "log_spectrogram" and not bands(self, rate).any(1).all():
            raise UserError("data.spectrum.n_mels", "is so large that a band holds no FFT bin", got=self.n_mels,
                            fix="set fewer, or a longer window")  # fmt: skip

    def top(self, rate: int) -> float:
        """Upper end of the highest band, in Hz."""
        return rate / 2 if self.high == "auto" else self.high

    def sizes(self, rate: int) -> tuple[int, int, int]:
        """(samples of a window, of a hop, of the FFT): that of a power of two for the smooth forms."""
        window, hop = max(2, round(self.window * rate)), max(1, round(self.hop * rate))
        n_fft = window if self.form == "log_spectrogram" else 2 ** math.ceil(math.log2(window))
        return window, hop, n_fft

    def n_bins(self, rate: int) -> int:
        """Numbers of a frame."""
        if self.form == "log_spectrogram":
            return self.sizes(rate)[2] // 2 + 1
        return self.n_mels if self.form == "log_mel" else self.n_coefficients

    def n_frames(self, n_samples: NDArray[np.int64], rate: int) -> NDArray[np.int64]:
        """Frames of sounds of so many samples."""
        return np.asarray(n_samples // self.sizes(rate)[1] + 1, np.int64)

    def frames(self, waves: Tensor, rate: int) -> Tensor:
        """(B, N) float32, zero after each sound's end -> (B, 1 + N // hop, F). Valid are the first n_frames of each."""
        import torch
        import torch.nn.functional as F

        window, hop, n_fft = self.sizes(rate)
        padded = F.pad(waves, (n_fft // 2, n_fft - n_fft // 2))
        spectrum = torch.stft(padded, n_fft, hop, window, torch.hann_window(window), center=False, return_complex=True)[
            ..., : 1 + waves.shape[1] // hop
        ]
        power = torch.view_as_real(spectrum).square().sum(-1).transpose(1, 2)
        power = power * (1.0 / window)
        if self.form == "log_spectrogram":
            return (power + FLOOR).log()
        logs = (power @ torch.from_numpy(bands(self, rate).T.astype(np.float32)) + FLOOR).log()
        return logs if self.form == "log_mel" else logs @ torch.from_numpy(cosines(self).T.astype(np.float32))


def mel(hertz: float) -> float:
    """The mel scale in O'Shaughnessy's form (1987)."""
    return 2595 * math.log10(1 + hertz / 700)


@lru_cache(maxsize=8)
def bands(spectrum: Spectrum, rate: int) -> Floats:
    """(n_mels, K) triangles: band m rises from edge m to edge m + 1 and falls to edge m + 2, edges even in mel."""
    n_fft = spectrum.sizes(rate)[2]
    edges = np.linspace(mel(spectrum.low), mel(spectrum.top(rate)), spectrum.n_mels + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    at = np.arange(n_fft // 2 + 1) * rate / n_fft
    rise = (at - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    fall = (hertz[2:, None] - at) / (hertz[2:] - hertz[1:-1])[:, None]
    return np.asarray(np.clip(np.minimum(rise, fall), 0, None), float)


@lru_cache(maxsize=8)
def cosines(spectrum: Spectrum) -> Floats:
    """(n_coefficients, n_mels) of the orthonormal cosine transform (type II)."""
    n = spectrum.n_mels
    k, m = np.arange(spectrum.n_coefficients)[:, None], np.arange(n)
    found = np.sqrt(2 / n) * np.cos(np.pi * k * (m + 0.5) / n)
    found[0] /= np.sqrt(2)
    return np.asarray(found, float)
