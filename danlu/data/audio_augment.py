"""Changes of training sounds, on whole batches. Each sample's are drawn from its own seed, so they depend on
(seed, epoch, sample) alone: not on workers, history, padding or the batch's other samples.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.settings import Settings
from danlu.data.augment import Draws, Share

if TYPE_CHECKING:
    from torch import Tensor

Words = NDArray[np.uint64]
Waves = NDArray[np.float32]
Counts = NDArray[np.int64]
NOISE = 1 << 19
"""Samples of the noise that is drawn once and cut from at places of each sample's own."""


class AudioAugment(Settings):
    """Random changes of training sounds; none by default."""

    speed: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Played faster or slower by up to this share, pitch and all (Ko et al. 2015)."""
    shift: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Up to so many seconds of silence before the sound, and after it."""
    gain: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Louder or softer by up to so many decibels."""
    noise: Share = 0.0
    """Chance that noise is added, white to brown."""
    noise_level: tuple[float, float] = (10.0, 40.0)
    """The sound's power over the noise's, in decibels: least and most."""
    time_masks: Annotated[int, Field(ge=0, le=100)] = 0
    """Stretches of frames set to the mean (SpecAugment: Park et al. 2019)."""
    time_width: Share = 0.2
    """Longest stretch, as a share of the sound."""
    frequency_masks: Annotated[int, Field(ge=0, le=100)] = 0
    """Ranges of bins set to the mean."""
    frequency_width: Share = 0.2
    """Widest range, as a share of the bins."""

    @property
    def changes_waves(self) -> bool:
        """Whether sound is changed before it becomes frames."""
        return bool(self.speed or self.shift or self.gain or self.noise)

    @property
    def is_on(self) -> bool:
        """Whether anything is changed."""
        return bool(self.changes_waves or self.time_masks or self.frequency_masks)


def changed(waves: Waves, lengths: Counts, draws: Draws, how: AudioAugment, rate: int) -> tuple[Waves, Counts]:
    """(B, N) sounds, zero after their ends, and their lengths -> the same, played at another speed, later, louder, in
    noise."""
    if how.speed:
        waves, lengths = at_speed(waves, lengths, 1 + draws.signed(how.speed))
    if how.shift:
        before, after = ((draws.uniform() * how.shift * rate).astype(np.int64) for _ in range(2))
        waves, lengths = later(waves, lengths, before, after)
    if how.gain:
        waves = waves * (10 ** (draws.signed(how.gain) / 20))[:, None].astype(np.float32)
    if how.noise:
        waves = noisy(waves, lengths, draws, how)
    return waves, lengths


def inside(lengths: Counts, width: int) -> NDArray[np.bool_]:
    """(B, width) whether a place lies in its sound."""
    return np.asarray(np.arange(width) < lengths[:, None])


def at_speed(waves: Waves, lengths: Counts, speed: NDArray[np.float32]) -> tuple[Waves, Counts]:
    """Sample i of the new sound is the old one at i * speed, by cubic interpolation (Catmull and Rom 1974)."""
    shorter = np.maximum(1, np.floor((lengths - 1) / speed).astype(np.int64) + 1)
    width = int(shorter.max())
    place = np.arange(width, dtype=np.float32) * speed[:, None]
    left = place.astype(np.int64)
    f = place - left
    padded = np.pad(waves, ((0, 0), (1, 3)))
    flat = padded.reshape(-1)
    first = np.minimum(left, padded.shape[1] - 4) + (np.arange(len(waves)) * padded.shape[1])[:, None]
    a, b, c, d = (flat[first + k] for k in range(4))
    found = b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))
    return np.where(inside(shorter, width), found, 0).astype(np.float32), shorter


def later(waves: Waves, lengths: Counts, before: Counts, after: Counts) -> tuple[Waves, Counts]:
    """Silence before and after each sound."""
    longer = lengths + before + after
    width = int(longer.max())
    place = np.arange(width) - before[:, None]
    held = (place >= 0) & (place < lengths[:, None])
    flat = np.clip(place, 0, waves.shape[1] - 1) + (np.arange(len(waves)) * waves.shape[1])[:, None]
    return np.where(held, waves.reshape(-1)[flat], 0).astype(np.float32), longer


@lru_cache(maxsize=1)
def noises() -> tuple[Waves, Waves]:
    """White noise and brown noise (its running sum, held near zero), of power 1."""
    white = np.random.default_rng(1964).standard_normal(NOISE)
    spectrum = np.fft.rfft(white)
    spectrum[1:] /= np.maximum(np.arange(1, len(spectrum)), NOISE // 200)  # flat below 1/200 of the rate
    spectrum[0] = 0
    brown = np.fft.irfft(spectrum, NOISE)
    return white.astype(np.float32), (brown / brown.std()).astype(np.float32)


def noisy(waves: Waves, lengths: Counts, draws: Draws, how: AudioAugment) -> Waves:
    """Noise between white and brown, added to some sounds at a level of its own."""
    white, brown = noises()
    chosen, low, high = draws.uniform() < how.noise, *how.noise_level
    decibels, mix = low + (high - low) * draws.uniform(), draws.uniform() * (math.pi / 2)
    first = (draws.uniform() * NOISE).astype(np.int64)
    place = (first[:, None] + np.arange(waves.shape[1])) % NOISE
    power = np.square(waves, dtype=np.float64).sum(1) / np.maximum(lengths, 1)
    level = np.where(chosen, np.sqrt(power) * 10 ** (-decibels / 20), 0)
    added = (level * np.cos(mix))[:, None].astype(np.float32) * white[place]
    added += (level * np.sin(mix))[:, None].astype(np.float32) * brown[place]
    return np.where(inside(lengths, waves.shape[1]), waves + added, 0).astype(np.float32)


def masked(frames: Tensor, lengths: Counts, draws: Draws, how: AudioAugment) -> Tensor:
    """(B, T, F) normalised frames with stretches and ranges set to 0, which is the mean."""
    import torch

    n_frames, n_bins = frames.shape[1:]
    hidden = np.zeros((len(frames), n_frames, 1), bool)
    for _ in range(how.time_masks):
        first, last = stretch(draws, lengths, how.time_width)
        hidden |= ((np.arange(n_frames) >= first[:, None]) & (np.arange(n_frames) < last[:, None]))[..., None]
    banned = np.zeros((len(frames), 1, n_bins), bool)
    for _ in range(how.frequency_masks):
        first, last = stretch(draws, np.full(len(frames), n_bins), how.frequency_width)
        banned |= ((np.arange(n_bins) >= first[:, None]) & (np.arange(n_bins) < last[:, None]))[:, None]
    return frames.masked_fill(torch.from_numpy(hidden | banned), 0.0)


def stretch(draws: Draws, lengths: Counts, widest: float) -> tuple[Counts, Counts]:
    """(first, last + 1) of a stretch of up to `widest` of each length, anywhere in it."""
    width = (draws.uniform() * (widest * lengths + 1)).astype(np.int64)
    first = (draws.uniform() * (lengths - width + 1)).astype(np.int64)
    return first, first + width
