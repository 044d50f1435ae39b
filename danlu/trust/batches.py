"""What batches say of themselves, as numbers: repeats, order, labels that moved, features that give the answer away.

Everything here is numpy on arrays whose first axis is the sample. B samples, k projections of a label, n pooled samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Words = NDArray[np.uint64]
N_COLUMNS, N_PROJECTIONS, N_BINS, N_REDUCED = 256, 4, 16, 48
"""Numbers of a sample that are hashed, projections of a label, bins of a feature, features of a probe."""
MOST_COLUMNS = 4 * N_COLUMNS
"""Numbers of a sample that are looked at one by one."""
SHIFTS = (-2, -1, 0, 1, 2)
GRAM = 16
"""Tokens of a stretch that two texts are found to share by."""
WEIGHTS = np.random.default_rng(0x5EED).integers(1, 2**63, 4096, np.uint64) | np.uint64(1)
SIGNS = np.random.default_rng(0x51615).normal(size=(4096, N_PROJECTIONS))


def fingerprints(inputs: Mapping[str, Array]) -> Words:
    """(B,) hashes of samples by up to N_COLUMNS numbers of each of their tensors (multilinear: Carter & Wegman 1979)."""
    first = next(iter(inputs.values()))
    total = np.zeros(len(first), np.uint64)
    for place, name in enumerate(sorted(inputs)):
        rows = inputs[name].reshape(len(first), -1)
        stride = 1 if rows.dtype.kind in "iub" else max(1, rows.shape[1] // N_COLUMNS)
        rows = np.ascontiguousarray(rows[:, ::stride][:, :N_COLUMNS])
        words = rows.astype(np.float32).view(np.uint32) if rows.dtype.kind == "f" else rows
        keys = rolled(997 * place)[: words.shape[1]]
        total += (words.astype(np.uint64) * keys).sum(1, dtype=np.uint64)
    return total


@cache
def rolled(n: int) -> Words:
    """The weights, moved on by n."""
    return np.roll(WEIGHTS, n)


def grams(tokens: Array, step: int) -> Words:
    """Hashes of the stretches of GRAM tokens that start at every `step`-th place of the rows of (B, T); none in shorter rows."""
    if tokens.shape[1] < GRAM:
        return np.empty(0, np.uint64)
    views = np.lib.stride_tricks.sliding_window_view(tokens, GRAM, axis=1)[:, ::step].astype(np.uint64)
    found: Words = (views * WEIGHTS[:GRAM]).sum(-1, dtype=np.uint64).ravel()
    return found


def n_among(words: Words, known: Words) -> int:
    """How many of the words are among the known ones, which are sorted. (numpy's isin looks at every known one each time.)"""
    places = np.minimum(np.searchsorted(known, words), len(known) - 1)
    return int((known[places] == words).sum())


def label_numbers(targets: Array) -> Floats:
    """(B, k) each sample's targets in k numbers: random projections of classes (averaged over its positions; below 0 is
    unscored), the mean of numbers."""
    rows = targets.reshape(len(targets), -1)
    if rows.dtype.kind == "f":
        return np.repeat(rows.mean(1, dtype=np.float64)[:, None], N_PROJECTIONS, 1)
    known = rows >= 0
    values = SIGNS[rows % len(SIGNS)] * known[..., None]
    return np.asarray(values.sum(1) / np.maximum(known.sum(1), 1)[:, None])


def normal_score(f: float, d1: float, d2: float) -> float:
    """Standard normal score of an F statistic with (d1, d2) degrees of freedom (Paulson 1942)."""
    a, b, cube = 2 / (9 * d1), 2 / (9 * d2), max(f, 0.0) ** (1 / 3)
    return float(((1 - b) * cube - (1 - a)) / math.sqrt(b * cube * cube + a))


def between_batches(means: Floats, variances: Floats, sizes: Sequence[int]) -> float:
    """Score of batches' label means differing more than random batches' would: one-way analysis of variance, the largest
    over projections (Fisher 1925). means, variances (W, k) of W batches; 0 where it cannot be told."""
    n = np.array(sizes, float)[:, None]
    total, groups = float(n.sum()), len(sizes)
    d1, d2 = groups - 1, total - groups
    if groups < 3 or d2 < groups:
        return 0.0
    middle = (n * means).sum(0) / total
    between = (n * (means - middle) ** 2).sum(0) / d1
    within = (n * variances).sum(0) / d2
    spread = np.maximum(within, 1e-12 + 1e-6 * means.var(0))
    return max(normal_score(float(f), d1, d2) for f in between / spread)


def carried_over(means: Floats) -> float:
    """Score of the batches' label means depending on the batch before: lag-one autocorrelation times sqrt(W) (Bartlett
    1946), the largest over projections; 0 where nothing varies."""
    x = means - means.mean(0)
    power = (x * x).sum(0)
    live = power > 1e-12 * (1 + (means**2).sum(0))
    if len(means) < 8 or not live.any():
        return 0.0
    r = (x[1:] * x[:-1]).sum(0)[live] / power[live]
    return float(r.max() * math.sqrt(len(means)))


def columns(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """{"numbers[3]": (B,)}: up to MOST_COLUMNS single features, whole numbers being categories."""
    found: dict[str, Array] = {}
    for name in sorted(inputs):
        rows = inputs[name].reshape(len(inputs[name]), -1)
        stride = max(1, rows.shape[1] // MOST_COLUMNS)
        found |= {f"{name}[{i}]": rows[:, i] for i in range(0, rows.shape[1], stride)}
    return found


def deciding(features: Mapping[str, Array], labels: Floats) -> tuple[float, str]:
    """(share of the labels' variance that the single best feature explains, its name): correlation ratio over categories,
    over N_BINS bins of equal count or 4 N_BINS of equal width, corrected for the bins (Kelley 1935)."""
    centred = labels - labels.mean(0)
    best, total, n = (0.0, ""), float((centred**2).sum()), len(labels)
    if total <= 0:
        return best
    numbers = {name: x for name, x in features.items() if x.dtype.kind == "f"}
    cuts = [(numbers, bins) for bins in (binned(np.stack(list(numbers.values()), 1)) if numbers else ())]
    for name, x in features.items():
        if name not in numbers:
            cuts.append(({name: x}, np.unique(x, return_inverse=True)[1].reshape(-1, 1)))
    for names, bins in cuts:
        share = explained_by(bins, centred) / total
        n_used = 1 + (np.diff(np.sort(bins, 0), axis=0) > 0).sum(0)
        corrected = 1 - (1 - share) * (n - 1) / np.maximum(n - n_used, 1)
        corrected[(n_used <= 1) | (n_used > n / 8)] = 0.0
        i = int(corrected.argmax())
        best = max(best, (float(corrected[i]), list(names)[i]))
    return best


def binned(x: Floats) -> list[NDArray[np.intp]]:
    """Ways to cut each feature of (n, F) into few values, (n, F) each."""
    equal_count = np.quantile(x, np.linspace(0, 1, N_BINS + 1)[1:-1], axis=0)
    low, high = x.min(0), x.max(0)
    equal_width = np.linspace(low, high, 4 * N_BINS + 1)[1:-1]
    found = [np.zeros(x.shape, np.intp) for _ in range(2)]
    for bins, cuts in zip(found, (equal_count, equal_width), strict=True):
        for cut in cuts:
            bins += x > cut
    return found


def explained_by(bins: NDArray[np.intp], centred: Floats) -> Floats:
    """(F,) sums of squares between the bins of each feature (n, F), labels (n, L) being centred."""
    n_features = bins.shape[1]
    size = int(bins.max()) + 1
    place = (bins + size * np.arange(n_features)).ravel()
    counts = np.maximum(np.bincount(place, minlength=size * n_features), 1)
    sums = np.stack([np.bincount(place, np.repeat(c, n_features), size * n_features) for c in centred.T], 1)
    return np.asarray((sums**2 / counts[:, None]).reshape(n_features, -1).sum(1))


def reduced(features: Mapping[str, Array]) -> Floats:
    """(n, <= N_REDUCED) standardised numbers that stand for the samples: categories one-hot, then a fixed random
    projection where there are more (Johnson & Lindenstrauss 1984)."""
    parts: list[Floats] = []
    step = max(1, sum(1 if x.dtype.kind == "f" else 32 for x in features.values()) // (MOST_COLUMNS // 2))
    for x in list(features.values())[::step]:
        parts.append(x[:, None].astype(float) if x.dtype.kind == "f" else np.eye(32)[x % 32])
    wide: Floats = np.concatenate(parts, 1)
    wide = (wide - wide.mean(0)) / np.maximum(wide.std(0), 1e-9) * (wide.std(0) > 1e-9)
    if wide.shape[1] <= N_REDUCED:
        return wide
    turned = wide @ np.random.default_rng(5).normal(size=(wide.shape[1], N_REDUCED))
    return np.asarray(turned / np.maximum(turned.std(0), 1e-9))


def explained_at(x: Floats, labels: Floats) -> dict[int, float]:
    """{shift: share of the labels of sample i + shift that sample i tells, on held-out samples}: ridge regression on the
    first half, R^2 on the second (Hoerl & Kennard 1970)."""
    found, half = {}, len(x) // 2
    for shift in SHIFTS:
        y = np.roll(labels, -shift, 0)
        y = (y - y.mean(0)) / np.maximum(y.std(0), 1e-9)
        gram = x[:half].T @ x[:half] + 0.1 * half * np.eye(x.shape[1])
        fit = np.linalg.solve(gram, x[:half].T @ (y[:half] - y[:half].mean(0)))
        wanted = y[half:] - y[half:].mean(0)
        left = ((wanted - x[half:] @ fit) ** 2).sum() / max(1e-9, float((wanted**2).sum()))
        found[shift] = max(0.0, float(1 - left))
    return found


def agreement(tokens: Array, targets: Array) -> dict[int, float]:
    """{offset: share of targets that equal the token so many places on}, (B, T) each: 1 at offset 1 in a language task."""
    T = tokens.shape[1]
    found = {}
    for offset in (-1, 0, 1, 2, 3):
        a, b = max(0, -offset), T - max(0, offset)
        wanted = targets[:, a:b]
        known = wanted >= 0
        found[offset] = float((wanted == tokens[:, a + offset : b + offset])[known].mean()) if known.any() else 0.0
    return found


def moved_labels(tokens: Array, targets: Array) -> dict[int, float]:
    """{shift: score of the labels telling more of the token `shift` places on than of their own}: pointwise mutual
    information over all positions, paired by sample (Church & Hanks 1990). tokens, targets (n, T); -1 is no label."""
    n, T = tokens.shape
    if T < 8:
        return {}
    edge = max(SHIFTS)
    labels = targets[:, edge : T - edge]
    known = labels >= 0
    told = {}
    for shift in SHIFTS:
        letters = tokens[:, edge + shift : T - edge + shift] % 64
        cells = (letters * 32 + labels.clip(0) % 32)[known]
        joint = np.bincount(cells, minlength=64 * 32).reshape(64, 32) + 1e-9
        joint /= joint.sum()
        gain = np.log(joint / (joint.sum(1, keepdims=True) * joint.sum(0)))
        values = np.zeros(labels.shape)
        values[known] = gain.ravel()[cells]
        told[shift] = values.sum(1) / np.maximum(known.sum(1), 1)
    differences = {s: told[s] - told[0] for s in SHIFTS if s}
    return {s: float(d.mean() / max(d.std(ddof=1) / math.sqrt(n), 1e-9)) for s, d in differences.items()}


def follows(tokens: Array, targets: Array) -> float:
    """Share of windows that begin where the window before them in the batch ends: 1 when a text is read in order."""
    if len(tokens) < 2:
        return 0.0
    return float((targets[:-1, -1] == tokens[1:, 0]).mean())
