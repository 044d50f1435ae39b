"""Scores of tags: per position, resampled over sequences; and of spans, where the tags begin and continue them.

U sequences, C classes. Every metric is a sum over sequences, so a resample is a weighted sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.tasks.metrics_classes import drawn, ratio

Floats = NDArray[np.float64]
MAX_NAMED = 12
"""Classes whose F1 is a metric of its own."""
MAX_CELLS = 20_000_000
Span = tuple[int, int, str]


class TagScorer:
    """Shares (T, C) of each sequence held against classes (T,); -1 is not scored."""

    def __init__(self, predictions: Sequence[Any], truths: Sequence[Any], names: list[str]) -> None:
        self.names, self.n_units = names, len(truths)
        n_classes = len(names)
        sizes = [len(t) for t in truths]
        unit = np.repeat(np.arange(self.n_units), sizes)
        shares = np.concatenate([*predictions, np.empty((0, n_classes))])
        truth = np.concatenate([*truths, np.empty(0, np.int64)]).astype(np.int64)
        said = shares.argmax(1) if len(shares) else truth
        at = np.flatnonzero(truth >= 0)
        picked = np.clip(shares[at, truth[at]], 1e-12, 1.0)
        self.nats = np.bincount(unit[at], -np.log(picked), self.n_units)
        self.cells = self.confusions(unit[at], truth[at], said[at], n_classes)
        self.n = np.bincount(unit[at], minlength=self.n_units).astype(float)
        self.right = np.bincount(unit[at], (truth == said)[at], self.n_units)
        self.spans = None
        if is_spans(names):
            ends = np.cumsum([0, *sizes])
            rows = [slice(ends[i], ends[i + 1]) for i in range(self.n_units)]
            self.spans = np.array([span_counts(truth[row], said[row], names) for row in rows], float).reshape(-1, 3)

    def confusions(self, unit: NDArray[Any], truth: NDArray[Any], said: NDArray[Any], n_classes: int) -> Floats:
        """(U, C * C) positions by truth and prediction; with many classes and sequences (U, 3 C): right, true, said."""
        n = self.n_units
        if n * n_classes**2 <= MAX_CELLS:
            cells = np.bincount((unit * n_classes + truth) * n_classes + said, minlength=n * n_classes**2)
            return np.asarray(cells.reshape(n, -1), float)
        right = truth == said
        parts = [
            np.bincount(unit[w] * n_classes + c[w], minlength=n * n_classes).reshape(n, -1)
            for c, w in ((truth, right), (truth, right | True), (said, right | True))
        ]
        return np.asarray(np.concatenate(parts, 1), float)

    def counts(self, weights: Floats) -> Floats:
        """(3, C) positions of each class: right, true, said."""
        sums, n = weights @ self.cells, len(self.names)
        if len(sums) == 3 * n and n != 3:
            return np.asarray(sums.reshape(3, n))
        confusion = sums.reshape(n, n)
        return np.stack([np.diag(confusion), confusion.sum(1), confusion.sum(0)])

    def values(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """accuracy (of positions), sequence_accuracy (mean of each sequence's), f1 (macro) and by class, log_loss."""
        weights = drawn(rows, self.n_units)
        n = float(weights @ self.n)
        right, true, said = self.counts(weights)
        known = self.n > 0
        own = self.right[known] / self.n[known]
        f1 = 2 * right / np.maximum(true + said, 1)
        found = {
            "accuracy": ratio(float(weights @ self.right), n),
            "sequence_accuracy": ratio(float(weights[known] @ own), float(weights[known].sum())),
            "f1": float(f1[true + said > 0].mean()) if n else float("nan"),
        }
        if self.spans is not None:
            hits, n_true, n_said = weights @ self.spans
            found["span_f1"] = ratio(2 * hits, n_true + n_said)
        if len(self.names) <= MAX_NAMED:
            found |= {f"f1_{name}": float(value) for name, value in zip(self.names, f1, strict=True)}
        return found | {"log_loss": ratio(float(weights @ self.nats), n)}


def is_spans(names: list[str]) -> bool:
    """Whether the classes are O, B-name and I-name (or E-, S-)."""
    return "O" in names and all(name == "O" or name[:2] in ("B-", "I-", "E-", "S-") for name in names)


def spans_of(tags: Sequence[str]) -> set[Span]:
    """(first, end, name) of every span, as conlleval reads them: an I- after another name begins one."""
    found, start, name = set(), 0, ""
    for i, tag in enumerate([*tags, "O"]):
        mark, own = (tag[0], tag[2:]) if len(tag) > 2 else ("O", "")
        if name and (mark in "OBS" or own != name):
            found.add((start, i, name))
            name = ""
        if mark != "O" and not name:
            start, name = i, own
        if mark in "ES" and name:
            found.add((start, i + 1, name))
            name = ""
    return found


def span_counts(truth: NDArray[Any], said: NDArray[Any], names: list[str]) -> tuple[int, int, int]:
    """(right, true, said) spans of a sequence; a position that is not scored breaks them."""
    true, told = (spans_of(["O" if t < 0 else names[c] for t, c in zip(truth, x, strict=True)]) for x in (truth, said))
    return len(true & told), len(true), len(told)
