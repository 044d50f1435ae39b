"""Rivals of a transcriber that cost seconds: the commonest transcript, and that of the most similar training sound."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Split
from danlu.tasks.transcribe import texts_of

PART = 256
MAX_TRAIN = 5000
N_STRETCHES = 8
"""Equal stretches whose mean frames stand for a sound."""


def rivals(train: Split, split: Split) -> dict[str, list[str]]:
    """Transcripts of `split` by rival, both fitted on at most MAX_TRAIN evenly spaced training sounds."""
    vectors, texts = outlines(train, MAX_TRAIN)
    commonest = Counter(texts).most_common(1)[0][0]
    own, _ = outlines(split, None)
    nearest = []
    for first in range(0, len(own), PART):
        part = own[first : first + PART]
        away = (vectors**2).sum(1) - 2 * part @ vectors.T
        nearest += [texts[i] for i in away.argmin(1)]
    return {"most frequent transcript": [commonest] * len(split), "most similar sound": nearest}


def outlines(split: Split, most: int | None) -> tuple[NDArray[np.float64], list[str]]:
    """((N, N_STRETCHES * F) mean frames of equal stretches of each sound, transcripts)."""
    n = len(split)
    rows = np.arange(n) if most is None or n <= most else np.arange(most) * n // most
    vectors: list[NDArray[Any]] = []
    texts: list[str] = []
    for first in range(0, len(rows), PART):
        batch = split.batch(rows[first : first + PART])
        frames, lengths = batch.tensors["frames"].double().numpy(), batch.tensors["lengths"].numpy()
        sums = np.concatenate([np.zeros_like(frames[:, :1]), frames.cumsum(1)], 1)
        edges = np.arange(N_STRETCHES + 1) * lengths[:, None] / N_STRETCHES
        starts = np.floor(edges[:, :-1]).astype(int)
        ends = np.maximum(np.ceil(edges[:, 1:]).astype(int), starts + 1)
        row = np.arange(len(frames))[:, None]
        means = (sums[row, ends] - sums[row, starts]) / (ends - starts)[..., None]
        vectors += list(means.reshape(len(frames), -1))
        texts += texts_of(batch)
    return np.array(vectors), texts
