"""Prepared sounds by number: 16-bit samples end to end, made into frames when a batch asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch
from danlu.data.audio_augment import AudioAugment, changed, inside, masked
from danlu.data.audio_features import Spectrum
from danlu.data.audio_read import Samples
from danlu.data.augment import Draws

if TYPE_CHECKING:
    from torch import Tensor

Arrays = dict[str, NDArray[Any]]
FRAMES_AT_ONCE = 1 << 17
SAMPLES_AT_ONCE = 1 << 23
"""Samples that become spectra together: about 200 MB of them."""


class Scale(NamedTuple):
    """How frames are normalised: what the training frames had, by bin."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


class Form(NamedTuple):
    """How sound becomes what the model sees."""

    rate: int
    spectrum: Spectrum
    augment: AudioAugment


def packed(sounds: Sequence[Samples]) -> Arrays:
    """samples (all,) int16, offsets (N + 1,), scales (N,): each sound fills the range of its 16 bits."""
    peaks = np.array([max(float(np.abs(sound).max()), 1e-9) for sound in sounds], np.float32)
    whole = [np.round(s / p * 32767).astype(np.int16) for s, p in zip(sounds, peaks, strict=True)]
    return {
        "samples": np.concatenate(whole) if whole else np.zeros(0, np.int16),
        "offsets": np.cumsum([0, *map(len, whole)]).astype(np.int64),
        "scales": peaks / np.float32(32767),
    }


def listed(rows: Sequence[Sequence[int]], name: str) -> Arrays:
    """Lists of numbers end to end: <name> (all,) int32 and <name>_offsets (N + 1,)."""
    flat = np.array([value for row in rows for value in row], np.int32)
    return {name: flat, f"{name}_offsets": np.cumsum([0, *map(len, rows)]).astype(np.int64)}


def gathered(flat: NDArray[Any], offsets: NDArray[np.int64], rows: NDArray[np.int64], fill: int) -> NDArray[Any]:
    """(B, longest) of the lists `rows`, filled up."""
    lengths = offsets[rows + 1] - offsets[rows]
    width = max(1, int(lengths.max(initial=0)))
    if not len(flat):
        return np.full((len(rows), width), fill, flat.dtype)
    place = np.minimum(offsets[rows][:, None] + np.arange(width), len(flat) - 1)
    return np.where(inside(lengths, width), flat[place], fill)


class AudioSplit:
    """Sounds with classes (targets) or with transcripts (units: their codes; text: their characters)."""

    def __init__(self, arrays: Arrays, names: Sequence[str], form: Form, scale: Scale | None) -> None:
        self.arrays, self.names, self.form, self.scale = arrays, names, form, scale
        self.n_samples = np.diff(arrays["offsets"])
        self.lengths = form.spectrum.n_frames(self.n_samples, form.rate)
        """(N,) frames of each sound."""
        self.at_once = max(1, FRAMES_AT_ONCE // max(1, int(self.lengths.max(initial=1))))
        """Sounds that are scored together."""

    def __len__(self) -> int:
        return len(self.n_samples)

    def name(self, row: int) -> str:
        """7/7_theo_3.wav."""
        return self.names[row]

    def sound(self, row: int) -> tuple[Samples, int]:
        """(samples (n,), samples a second) of one sound, to be played."""
        first, last = self.arrays["offsets"][row : row + 2]
        return self.arrays["samples"][first:last] * self.arrays["scales"][row], self.form.rate

    def batch(self, rows: NDArray[np.int64], seeds: NDArray[np.uint64] | None = None) -> Batch:
        """frames (B, T, F), normalised and 0 after each sound's end; lengths (B,) frames; targets. A few sounds at a time,
        so that long ones do not fill the memory with spectra."""
        import torch
        import torch.nn.functional as F

        at_once = max(1, SAMPLES_AT_ONCE // max(1, int(self.n_samples[rows].max(initial=1))))
        parts = [
            self.part(rows[i : i + at_once], None if seeds is None else seeds[i : i + at_once])
            for i in range(0, len(rows), at_once)
        ]
        longest = max(frames.shape[1] for frames, _ in parts)
        found = [F.pad(frames, (0, 0, 0, longest - frames.shape[1])) for frames, _ in parts]
        lengths = np.concatenate([n for _, n in parts])
        tensors = {"frames": torch.cat(found), "lengths": torch.from_numpy(lengths), **self.targets(rows)}
        return Batch(tensors, int((tensors["targets"] >= 0).sum()))

    def part(self, rows: NDArray[np.int64], seeds: NDArray[np.uint64] | None) -> tuple[Tensor, NDArray[np.int64]]:
        """(frames, lengths) of some sounds, changed as their seeds say."""
        how, draws = self.form.augment, None if seeds is None else Draws(seeds)
        waves = gathered(self.arrays["samples"], self.arrays["offsets"], rows, 0) * self.arrays["scales"][rows][:, None]
        n_samples = self.n_samples[rows]
        if draws is not None and how.changes_waves:
            waves, n_samples = changed(waves, n_samples, draws, how, self.form.rate)
        frames, lengths = self.framed(waves, n_samples)
        if draws is not None and (how.time_masks or how.frequency_masks):
            frames = masked(frames, lengths, draws, how)
        return frames, lengths

    def framed(self, waves: NDArray[np.float32], n_samples: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        """(frames (B, T, F), lengths (B,)) of waves (B, N) that are zero after their ends."""
        import torch

        spectrum, rate = self.form.spectrum, self.form.rate
        lengths = spectrum.n_frames(n_samples, rate)
        frames = spectrum.frames(torch.from_numpy(np.ascontiguousarray(waves, np.float32)), rate)[:, : lengths.max()]
        if self.scale is not None:
            frames = (frames - torch.from_numpy(self.scale.mean)) / torch.from_numpy(self.scale.std)
        outside = torch.from_numpy(~inside(lengths, frames.shape[1]))
        return frames.masked_fill_(outside[..., None], 0.0), lengths

    def targets(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Classes (B,), or units (B, U) with the text they stand for (B, L), both filled up with -1."""
        import torch

        if "targets" in self.arrays:
            return {"targets": torch.from_numpy(self.arrays["targets"][rows].astype(np.int64))}
        found = {}
        for name, of in (("targets", "units"), ("text", "text")):
            padded = gathered(self.arrays[of], self.arrays[f"{of}_offsets"], rows, -1)
            found[name] = torch.from_numpy(padded.astype(np.int64))
        return found


def measured(split: AudioSplit, at_once: int = 64) -> Scale:
    """Mean and standard deviation of each bin over all frames of a split, in double precision."""
    total: Any = 0.0
    square: Any = 0.0
    for first in range(0, len(split), at_once):
        rows = np.arange(first, min(len(split), first + at_once))
        frames = split.batch(rows).tensors["frames"].double()
        total, square = total + frames.sum((0, 1)).numpy(), square + frames.square().sum((0, 1)).numpy()
    n = max(1, int(split.lengths.sum()))
    mean = total / n
    std = np.sqrt(np.maximum(square / n - mean**2, 0))
    return Scale(mean.astype(np.float32), np.maximum(std, 1e-3).astype(np.float32))
