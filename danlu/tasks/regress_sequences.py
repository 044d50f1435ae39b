"""What regression on sequences adds: agreement of order, and the linear rival.

U units, K targets, N sequences, V tokens, P places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MAX_COLUMNS = 2000
"""Widest design of the linear rival."""


@dataclass(frozen=True)
class Ranked:
    """Numbers sorted once, for ranks under any resample."""

    order: NDArray[np.int64]
    group: NDArray[np.int64]
    """(U,) number of the run of equal values that each sorted unit is in."""

    @classmethod
    def of(cls, values: Floats) -> Ranked:
        """From (U,) numbers."""
        order = np.argsort(values, kind="stable")
        new = np.append(True, values[order][1:] != values[order][:-1]) if len(values) else np.zeros(0, bool)
        return cls(order, np.cumsum(new) - 1)

    def ranks(self, counts: Floats) -> Floats:
        """(U,) mean rank of each unit, up to a constant, when it is drawn counts (U,) times."""
        sizes = np.bincount(self.group, counts[self.order])
        found = np.empty(len(counts))
        found[self.order] = (np.cumsum(sizes) - sizes / 2)[self.group]
        return found


def spearman(x: Ranked, y: Ranked, counts: Floats) -> float:
    """Spearman's (1904) correlation of ranks over drawn units; 0 where either is constant: it tells no order."""
    a, b = x.ranks(counts), y.ranks(counts)
    total = counts.sum()
    a, b = a - counts @ a / total, b - counts @ b / total
    size = float(np.sqrt((counts @ a**2) * (counts @ b**2)))
    return float(counts @ (a * b)) / size if size > 0 else 0.0


def design(
    train: Sequence[Mapping[str, NDArray[Any]]], asked: Sequence[Mapping[str, NDArray[Any]]], vocab_size: int
) -> tuple[Floats, Floats] | None:
    """Columns for a linear model of both: which token stands at each place that varies in training, where all sequences
    are of one length; else the share of each token and the length. None where that is too wide."""
    lengths = {int(n) for part in (*train, *asked) for n in part["lengths"]}
    if len(lengths) == 1:
        ours, theirs = (np.concatenate([part["tokens"] for part in some]) for some in (train, asked))
        varied = np.flatnonzero((ours != ours[0]).any(0))
        pairs = [(place, token) for place in varied for token in np.unique(ours[:, place])]
        if 0 < len(pairs) <= MAX_COLUMNS:
            return tuple(np.stack([x[:, p] == t for p, t in pairs], 1).astype(float) for x in (ours, theirs))  # type: ignore[return-value]
    if vocab_size > MAX_COLUMNS:
        return None
    return tuple(np.concatenate([shares(part, vocab_size) for part in some]) for some in (train, asked))  # type: ignore[return-value]


def shares(part: Mapping[str, NDArray[Any]], vocab_size: int) -> Floats:
    """(N, V + 1) share of each token, and the logarithm of the length."""
    tokens, lengths = part["tokens"], part["lengths"]
    row, at = np.nonzero(np.arange(tokens.shape[1]) < lengths[:, None])
    cells = np.bincount(row * vocab_size + tokens[row, at], minlength=len(tokens) * vocab_size)
    found = cells.reshape(len(tokens), vocab_size) / np.maximum(lengths, 1)[:, None]
    return np.concatenate([found, np.log1p(lengths)[:, None]], 1)
