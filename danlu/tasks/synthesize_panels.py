"""What synthesis gives the report: new clips to play, with spectrograms, beside real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import DataCard
from danlu.base.sound import spectrogram_png
from danlu.tasks.panels import clips
from danlu.tasks.samples import Panel

if TYPE_CHECKING:
    from torch import nn

    from danlu.tasks.synthesize import Synthesize

LONGEST_S = 3.0
"""Most seconds of a clip in the report."""
WIDEST, FLOOR_DB = 400, 70.0


def clip_panels(task: Synthesize, model: nn.Module, split: Any, card: DataCard) -> list[Panel]:
    """New clips, one a value of the first condition in turn; and a real clip of each of these."""
    import torch

    from danlu.tasks.synthesize import wav_of

    features = card.features
    values, n = features["values"], task.clips
    rng = np.random.default_rng(0)
    of = [
        [i % len(values[0]), *(int(rng.integers(len(known))) for known in values[1:])] if values else []
        for i in range(n)
    ]
    most = int(LONGEST_S * features["rate"])
    lengths = [min(most, max(1, features["durations"][row[0] if row else 0][10])) for row in of]
    device = next(model.parameters()).device
    conditions = torch.tensor(of, dtype=torch.int64, device=device).reshape(n, len(values))
    seeds = torch.from_numpy(rng.integers(2**62, size=n))
    made = task.made(model, conditions, torch.tensor(lengths, device=device), seeds)
    names = [
        ", ".join(known[i] for i, known in zip(row, values, strict=True)) or f"clip {k}" for k, row in enumerate(of)
    ]
    drawn = [(wav_of(levels, card), picture(levels, card), name) for levels, name in zip(made, names, strict=True)]
    real = real_clips(split, [row[0] if row else -1 for row in of], most)
    shown = [(wav_of(levels, card), picture(levels, card), name) for levels, name in real]
    note = f"Drawn sample by sample at temperature {task.temperature:g}; not selected. Loudness in dB over time."
    return [clips("New clips", drawn, note), clips("Real clips, through the same levels", shown, "For comparison.")]


def real_clips(split: Any, wanted: list[int], most: int) -> list[tuple[NDArray[np.int64], str]]:
    """(levels, name) of the first clips of the split that are of each wanted value, none twice."""
    found: list[tuple[NDArray[np.int64], str]] = []
    first_of: dict[int, list[int]] = {}
    for row in range(len(split)):
        tensors = split.batch(np.array([row])).tensors
        value = int(tensors["conditions"][0, 0]) if tensors["conditions"].shape[1] else -1
        first_of.setdefault(value, []).append(row)
        if all(len(first_of.get(v, ())) >= wanted.count(v) for v in wanted):
            break
    for value in wanted:
        if first_of.get(value):
            row = first_of[value].pop(0)
            tensors = split.batch(np.array([row])).tensors
            found.append((tensors["levels"][0].numpy()[tensors["targets"][0].numpy() >= 0][:most], split.name(row)))
    return found


def picture(levels: NDArray[np.int64], card: DataCard) -> bytes:
    """A spectrogram: short-time Fourier transform in dB, FLOOR_DB deep."""
    samples = np.array(card.features["level_values"])[levels]
    size = 2 ** max(5, round(np.log2(0.025 * card.features["rate"])))
    samples = np.pad(samples, (0, max(0, size - len(samples))))
    hop = max(size // 4, -(-(len(samples) - size + 1) // WIDEST))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop] * np.hanning(size)
    decibel = 10 * np.log10(np.abs(np.fft.rfft(frames, axis=1)) ** 2 + 1e-12)
    return spectrogram_png(np.maximum(decibel, decibel.max() - FLOOR_DB), zoom=2)
