"""What WaveNet must beat: levels by how often they are, by what they follow, and a linear predictor whose errors have a
scale that follows the sound. Each gives every level a chance, and the chances of all levels sum to one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Split

Floats = NDArray[np.float64]
ORDER = 24
"""Samples that the linear predictor looks back on: 3 ms at 8 kHz, about one for each formant's two poles and more."""
DECAYS = (0.9, 0.97, 0.99, 0.997)
"""Memories that the scale of the errors may have."""
FACTORS = tuple(np.geomspace(0.35, 1.4, 9))
MIX = 1e-3
"""Share of a uniform chance, so that no level is impossible."""
RIDGE = 1e-6
N_FIT = 400_000
"""Training samples that scale and shape are chosen on."""
ROUNDS = 3
PIECE = 64


def rivals(train: Split, split: Split, features: Mapping[str, Any]) -> dict[str, list[float]]:
    """Nats of each piece of `split`, by rival, all fitted on `train`."""
    n_levels = int(features["levels"])
    unigram, bigram = counted(train, n_levels)
    linear = fitted(train, features)
    found: dict[str, list[float]] = {"levels by frequency": [], "levels by the one before": [], "linear predictor": []}
    for levels, scored in pieces(split):
        before = np.concatenate([np.full((len(levels), 1), n_levels // 2), levels[:, :-1]], 1)
        found["levels by frequency"] += (unigram[levels] * scored).sum(1).tolist()
        found["levels by the one before"] += (bigram[before, levels] * scored).sum(1).tolist()
        found["linear predictor"] += (linear.nats(levels) * scored).sum(1).tolist()
    return found


def pieces(split: Split) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """(levels (b, T), which of them are scored) of a whole split."""
    size = min(PIECE, getattr(split, "at_once", PIECE))
    for first in range(0, len(split), size):
        tensors = split.batch(np.arange(first, min(len(split), first + size))).tensors
        yield tensors["levels"].numpy(), tensors["targets"].numpy() >= 0


def counted(train: Split, n_levels: int) -> tuple[Floats, Floats]:
    """Nats of each level (V,), and of each after each (V, V), from counts with one more everywhere; the second leans on
    the first where it has seen little (Witten and Bell 1991)."""
    pairs = np.zeros((n_levels, n_levels))
    for levels, scored in pieces(train):
        before = np.concatenate([np.full((len(levels), 1), n_levels // 2), levels[:, :-1]], 1)
        pairs += np.bincount(before[scored] * n_levels + levels[scored], minlength=n_levels**2).reshape(pairs.shape)
    single = (pairs.sum(0) + 1) / (pairs.sum() + n_levels)
    kinds = np.maximum((pairs > 0).sum(1, keepdims=True), 1)
    after = (pairs + kinds * single) / (pairs.sum(1, keepdims=True) + kinds)
    return -np.log(single), -np.log(after)


@dataclass(frozen=True)
class Linear:
    """x[t] is about sum_k weights[k] x[t - 1 - k]; the error is logistic, its scale a mean of what it was before."""

    weights: Floats
    values: Floats
    """(V,) sample of each level."""
    borders: Floats
    """(V - 1,) between levels."""
    decay: float = 0.97
    factor: float = 0.6
    floor: float = 1e-4

    def errors(self, levels: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """(predictions, errors), (b, T) each; before a clip there is silence."""
        x = self.values[levels]
        past = np.concatenate([np.full((len(x), len(self.weights)), self.values[len(self.values) // 2]), x], 1)
        made = sum(w * past[:, len(self.weights) - 1 - k : -1 - k] for k, w in enumerate(self.weights))
        return np.asarray(made), x - made

    def scale(self, errors: Floats) -> Floats:
        """(b, T) of the error at each step, from the errors before it."""
        return self.factor * running(np.abs(errors), self.decay, self.floor) + self.floor

    def nats(self, levels: NDArray[np.int64]) -> Floats:
        """(b, T) of each level: the logistic distribution's mass between the level's borders."""
        made, errors = self.errors(levels)
        edges = np.concatenate([[-np.inf], self.borders, [np.inf]])
        scale = self.scale(errors)
        mass = logistic((edges[levels + 1] - made) / scale) - logistic((edges[levels] - made) / scale)
        return np.asarray(-np.log((1 - MIX) * mass + MIX / len(self.values)))


def logistic(x: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def running(x: Floats, decay: float, first: float) -> Floats:
    """(b, T): at each step the exponential mean of what came before it."""
    found, mean = np.empty_like(x), np.full(len(x), first)
    for t in range(x.shape[1]):
        found[:, t] = mean
        mean = decay * mean + (1 - decay) * x[:, t]
    return found


def fitted(train: Split, features: Mapping[str, Any]) -> Linear:
    """Weights by least squares, each error weighed by the scale that the last fit gives it; then the scale by likelihood."""
    values, borders = np.array(features["level_values"]), np.array(features["level_borders"])
    found = Linear(np.eye(ORDER)[0], values, borders)
    for _ in range(ROUNDS):
        xx, xy = RIDGE * np.eye(ORDER), np.zeros(ORDER)
        for levels, scored in pieces(train):
            x = values[levels]
            past = np.concatenate([np.full((len(x), ORDER), values[len(values) // 2]), x], 1)
            seen = np.lib.stride_tricks.sliding_window_view(past[:, :-1], ORDER, 1)[..., ::-1]
            weight = scored / found.scale(found.errors(levels)[1])
            a, b = (seen * weight[..., None])[scored], (x * weight)[scored]
            xx, xy = xx + a.T @ a, xy + a.T @ b
        found = Linear(np.asarray(np.linalg.solve(xx, xy), np.float64), values, borders)
    return with_scale(found, train)


def with_scale(linear: Linear, train: Split) -> Linear:
    """The memory, factor and floor under which a part of the training samples is likeliest."""
    kept: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []
    size = 0
    order = np.random.default_rng(0).permutation(len(train))
    step = min(PIECE, getattr(train, "at_once", PIECE))
    for first in range(0, len(train), step):
        tensors = train.batch(order[first : first + step]).tensors
        kept.append((tensors["levels"].numpy(), tensors["targets"].numpy() >= 0))
        size += int(kept[-1][1].sum())
        if size >= N_FIT:
            break
    gap = float(np.diff(linear.values).min())

    def cost(candidate: Linear) -> float:
        return sum(float((candidate.nats(levels) * scored).sum()) for levels, scored in kept)

    def tried(name: str, options: tuple[float, ...], base: Linear) -> Linear:
        made = [Linear(**{**vars(base), name: float(option)}) for option in options]
        return min(made, key=cost)

    best = linear
    for _ in range(2):
        best = tried("decay", DECAYS, best)
        best = tried("factor", FACTORS, best)
        best = tried("floor", tuple(gap * f for f in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)), best)
    return best
