"""Scores of classes and labels, from sums a unit, so that a thousand resamples of 16,000 units take about a second.

A resample is a count of how often each unit was drawn; every metric is a weighted sum with those counts. Areas under
the ROC curve need an order as well: scores are sorted once, the counts are then taken in that order.
"""

# U units, C classes, L labels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
N_BINS = 15
"""Bins of the calibration error (Guo 2017, 1706.04599)."""
MAX_AUC_CLASSES = 50
"""With more classes the area under the curve is left out: it would cost more than all else together."""


def drawn(rows: Rows | None, n_units: int) -> Floats:
    """(U,) how often each unit is in `rows`; ones for all."""
    return np.ones(n_units) if rows is None else np.bincount(rows, minlength=n_units).astype(float)


def ratio(top: float, bottom: float) -> float:
    """top / bottom, NaN where there is nothing."""
    return float(top / bottom) if bottom else float("nan")


@dataclass(frozen=True)
class Area:
    """Areas under ROC curves: the chance that a positive is scored above a negative, ties half (Hanley 1982)."""

    order: NDArray[np.int64]
    """(K * U,) units of each curve in ascending order of score."""
    positive: Floats
    """(K * U,) 1 where the unit at that place is positive."""
    starts: NDArray[np.int64]
    """First place of each run of equal scores."""
    curve_starts: NDArray[np.int64]
    """(K,) number of each curve's first run."""

    @classmethod
    def of(cls, scores: Floats, positive: NDArray[np.bool_]) -> Area:
        """K curves over (U, K) scores and truths."""
        n_units, n_curves = scores.shape
        order = np.argsort(scores, axis=0, kind="stable").T
        sorted_scores = np.take_along_axis(scores.T, order, 1)
        new = np.ones((n_curves, n_units), bool)
        new[:, 1:] = sorted_scores[:, 1:] != sorted_scores[:, :-1]
        starts = np.flatnonzero(new)
        sides = np.take_along_axis(positive.T, order, 1).astype(float)
        curves = np.searchsorted(starts, np.arange(n_curves) * n_units)
        return cls(order.ravel(), sides.ravel(), starts, curves)

    def values(self, counts: Floats) -> Floats:
        """(K,) areas for drawn counts (U,); NaN where one side is empty."""
        weights = counts[self.order]
        yes = np.add.reduceat(weights * self.positive, self.starts)
        no = np.add.reduceat(weights, self.starts) - yes
        below = np.cumsum(no) - no
        n_yes, n_no = np.add.reduceat(yes, self.curve_starts), np.add.reduceat(no, self.curve_starts)
        wins = np.add.reduceat(yes * (below + 0.5 * no), self.curve_starts) - n_yes * below[self.curve_starts]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(wins / (n_yes * n_no), float)


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error: how far confidence and accuracy lie apart, in equal bins of confidence."""

    bins: NDArray[np.int64]
    gap: Floats
    """(U,) rightness minus confidence."""

    @classmethod
    def of(cls, confidence: Floats, right: Floats) -> Calibration:
        """From (U,) confidences in 0..1 and whether each was right."""
        return cls(np.minimum((confidence * N_BINS).astype(np.int64), N_BINS - 1), right - confidence)

    def value(self, counts: Floats) -> float:
        """Sum over bins of |sum of gaps| over all that was drawn."""
        return ratio(float(np.abs(np.bincount(self.bins, counts * self.gap)).sum()), float(counts.sum()))


def of_confusion(confusion: Floats) -> dict[str, float]:
    """f1 (macro) and balanced accuracy over classes. (C, C), rows: truth. As scikit-learn has them: f1 counts classes
    that are true or predicted somewhere, balanced accuracy those that are true."""
    right, true, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    present = true > 0
    seen = present | (said > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1, recall = 2 * right / (true + said), right / true
    return {
        "f1": float(f1[seen].mean()) if seen.any() else float("nan"),
        "balanced_accuracy": float(recall[present].mean()) if present.any() else float("nan"),
    }


class ClassScorer:
    """Shares of classes held against true classes."""

    def __init__(self, shares: Floats, truths: Rows) -> None:
        """shares (U, C), truths (U,); units whose truth is not known (-1) are left out."""
        known = truths >= 0
        shares, truths = np.asarray(shares[known], float), truths[known]
        self.n_classes, self.truths = shares.shape[1], truths
        self.said = shares.argmax(1) if len(shares) else truths
        self.right = (self.said == truths).astype(float)
        self.nats = -np.log(np.clip(shares[np.arange(len(truths)), truths], 1e-12, 1.0))
        self.calibration = Calibration.of(shares.max(1, initial=0.0), self.right)
        self.area: Area | None = None
        if len(truths) and self.n_classes <= MAX_AUC_CLASSES:
            columns = np.arange(self.n_classes) if self.n_classes > 2 else np.array([self.n_classes - 1])
            self.area = Area.of(shares[:, columns], truths[:, None] == columns)

    @property
    def n_units(self) -> int:
        """Samples with a known class."""
        return len(self.truths)

    def confusion(self, counts: Floats) -> Floats:
        """(C, C) drawn units by truth and prediction."""
        cells = np.bincount(self.truths * self.n_classes + self.said, counts, self.n_classes**2)
        return np.asarray(cells, float).reshape(self.n_classes, self.n_classes)

    def values(self, rows: Rows | None = None) -> dict[str, float]:
        """accuracy, f1 (macro), balanced_accuracy, auc (one against the rest, macro), log_loss, calibration_error."""
        counts = drawn(rows, self.n_units)
        n = float(counts.sum())
        found = {"accuracy": ratio(float(counts @ self.right), n)} | of_confusion(self.confusion(counts))
        if self.area is not None:
            areas = self.area.values(counts)
            found["auc"] = float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")
        found["log_loss"] = ratio(float(counts @ self.nats), n)
        return found | {"calibration_error": self.calibration.value(counts)}


class LabelScorer:
    """Shares of yes held against several yes-or-no labels a sample."""

    def __init__(self, shares: Floats, truths: Floats) -> None:
        """Both (U, L); a truth below 0 is not known and not counted."""
        shares = np.asarray(shares, float)
        self.known = (truths >= 0).astype(float)
        yes, said = (truths > 0.5) & (truths >= 0), (shares >= 0.5) & (truths >= 0)
        self.right = ((yes == said) & (truths >= 0)).astype(float)
        self.exact = (self.right.sum(1) == self.known.sum(1)).astype(float)
        self.hits, self.yes, self.said = (x.astype(float) for x in (yes & said, yes, said))
        p = np.clip(shares, 1e-12, 1 - 1e-12)
        self.nats = -(np.where(yes, np.log(p), np.log1p(-p)) * self.known).sum(1)
        whole = bool(len(truths)) and shares.shape[1] <= MAX_AUC_CLASSES and bool(self.known.all())
        self.area = Area.of(shares, yes) if whole else None

    @property
    def n_units(self) -> int:
        """Samples."""
        return len(self.known)

    def values(self, rows: Rows | None = None) -> dict[str, float]:
        """accuracy (share of labels right), exact_match (all of a sample's), f1 over labels and f1_micro, auc, log_loss."""
        counts = drawn(rows, self.n_units)
        n_labels, n = float(counts @ self.known.sum(1)), float(counts.sum())
        hits, yes, said = counts @ self.hits, counts @ self.yes, counts @ self.said
        seen = (yes + said) > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            f1 = 2 * hits / (yes + said)
        found = {
            "accuracy": ratio(float(counts @ self.right.sum(1)), n_labels),
            "exact_match": ratio(float(counts @ self.exact), n),
            "f1": float(f1[seen].mean()) if seen.any() else float("nan"),
            "f1_micro": ratio(2 * float(hits.sum()), float(yes.sum() + said.sum())),
        }
        if self.area is not None:
            areas = self.area.values(counts)
            found["auc"] = float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")
        return found | {"log_loss": ratio(float(counts @ self.nats), n_labels)}
