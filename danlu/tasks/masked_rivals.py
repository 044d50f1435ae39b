"""Rivals in filling gaps, by counting: how often a word occurs, and how often beside the words next to it."""

# V words, M gaps

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import DataCard, Split
from danlu.tasks.samples import Predictions

if TYPE_CHECKING:
    from danlu.tasks.masked import Masked

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
MAX_TRAIN, MAX_FITTED, PART = 50_000, 20_000, 256
"""Texts counted, tokens that the weights are fitted on, texts read at once."""
EDGE = 0
"""What stands before the first and behind the last word: padding."""


@dataclass(frozen=True)
class Pairs:
    """How often b stands beside a, by sorted codes a * V + b."""

    codes: Ids
    counts: Floats
    totals: Floats
    """(V,) of each a."""
    size: int

    @classmethod
    def of(cls, a: Ids, b: Ids, size: int) -> Pairs:
        """Count."""
        codes, counts = np.unique(a * size + b, return_counts=True)
        return cls(codes, counts.astype(float), np.bincount(a, minlength=size).astype(float), size)

    def count(self, a: Ids, b: Ids) -> Floats:
        """(M,) of each pair."""
        wanted = a * self.size + b
        at = np.minimum(np.searchsorted(self.codes, wanted), len(self.codes) - 1)
        return np.where(self.codes[at] == wanted, self.counts[at], 0.0)

    def add_row(self, shares: Floats, a: int, weight: float) -> None:
        """shares (V,) += weight * what stands beside a."""
        first, last = np.searchsorted(self.codes, [a * self.size, (a + 1) * self.size])
        if last > first:
            shares[self.codes[first:last] - a * self.size] += weight * self.counts[first:last] / self.totals[a]


def fill_rivals(train: Split, split: Split, task: Masked, card: DataCard) -> dict[str, Predictions]:
    """Nats and likeliest word at each gap of `split`, by rival; fitted on at most MAX_TRAIN texts of `train`."""
    from danlu.tasks.masked import fixed_seeds

    size, mask = int(card.features["vocab_size"]), int(card.features["mask_id"])
    n = len(train)
    rows = np.arange(n) if n <= MAX_TRAIN else np.arange(MAX_TRAIN) * n // MAX_TRAIN
    before, word, after = (np.concatenate(part) for part in zip(*map(beside, texts(train, rows)), strict=True))
    counts = np.bincount(word, minlength=size) + 0.5
    alone: Floats = np.asarray(counts / counts.sum(), np.float64)
    left, right = Pairs.of(before, word, size), Pairs.of(after, word, size)
    weights = fitted_weights(left, right, alone, before, word, after)
    unigram: list[Floats] = []
    neighbours: list[Floats] = []
    commonest = float(alone.argmax())
    for first in range(0, len(split), PART):
        some = np.arange(first, min(first + PART, len(split)))
        batch = task.change(split.batch(some), fixed_seeds(some))
        tokens, targets = (batch.tensors[name].numpy() for name in ("tokens", "targets"))
        for shown, wanted in zip(tokens, targets, strict=True):
            at = np.flatnonzero(wanted >= 0)
            truth = wanted[at]
            unigram.append(np.stack([-np.log(alone[truth]), np.full(len(at), commonest)], 1))
            padded = np.concatenate([[EDGE], shown, [EDGE]])
            neighbours.append(
                np.array([
                    beside_gap(left, right, alone, weights, (padded[i], padded[i + 2]), int(w), mask)
                    for i, w in zip(at, truth, strict=True)
                ]).reshape(-1, 2)
            )  # fmt: skip
    return {"unigram": unigram, "neighbours": neighbours}


def texts(split: Split, rows: Ids) -> Iterator[tuple[Ids, Ids]]:
    """(tokens, lengths) of some samples at a time, unchanged."""
    for first in range(0, len(rows), PART):
        tensors = split.batch(rows[first : first + PART]).tensors
        yield tensors["tokens"].numpy(), tensors["lengths"].numpy()


def beside(part: tuple[Ids, Ids]) -> tuple[Ids, Ids, Ids]:
    """(word before, word, word after) of every token that is no padding."""
    tokens, lengths = part
    edge = np.full((len(tokens), 1), EDGE)
    padded = np.concatenate([edge, tokens, edge], 1)
    inside = np.arange(tokens.shape[1]) < lengths[:, None]
    return padded[:, :-2][inside], tokens[inside], padded[:, 2:][inside]


def fitted_weights(left: Pairs, right: Pairs, alone: Floats, before: Ids, word: Ids, after: Ids) -> tuple[float, float]:
    """Weights of left and right (the rest is for the word alone) that make the training words likeliest, each of them
    left out of the counts that it is told from."""
    at = np.arange(min(len(word), MAX_FITTED)) * len(word) // min(len(word), MAX_FITTED)
    a, w, b = before[at], word[at], after[at]
    by_left = (left.count(a, w) - 1) / np.maximum(left.totals[a] - 1, 1)
    by_right = (right.count(b, w) - 1) / np.maximum(right.totals[b] - 1, 1)
    steps = np.arange(0, 1, 0.1)
    choices = [(float(x), float(y)) for x, y in product(steps, steps) if x + y < 0.95]
    return max(
        choices, key=lambda c: float(np.log(c[0] * by_left + c[1] * by_right + (1 - c[0] - c[1]) * alone[w]).sum())
    )


def beside_gap(
    left: Pairs,
    right: Pairs,
    alone: Floats,
    weights: tuple[float, float],
    around: tuple[int, int],
    truth: int,
    mask: int,
) -> tuple[float, float]:
    """(nats of the truth, likeliest word) between two words; one that is hidden or new says nothing."""
    shares = np.zeros(len(alone))
    rest = 1.0
    for pairs, weight, word in zip((left, right), weights, around, strict=True):
        if word != mask and pairs.totals[word]:
            pairs.add_row(shares, int(word), weight)
            rest -= weight
    shares += rest * alone
    return -float(np.log(shares[truth])), float(shares.argmax())
