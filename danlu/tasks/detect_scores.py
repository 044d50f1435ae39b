"""Average precision of boxes, and any resample of pictures in a few milliseconds.

AP is the area under the precision envelope at every recall (Pascal VOC from 2010 on, Everingham et al. 2015), with
COCO's greedy matching (Lin et al. 2014): detections by falling score, each to the free true box it overlaps most. What
lies on a box that is not scored (difficult, crowd) is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
THRESHOLDS = np.arange(50, 100, 5) / 100
RIGHT, WRONG, NEITHER = 1, 0, -1


def overlaps(a: Array, b: Array) -> tuple[Array, Array]:
    """(IoU, shared area over a's area), each (N, M), of boxes (N, 4) and (M, 4)."""
    low, top = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    shared = (top - low).clip(0).prod(-1)
    area_a, area_b = (a[:, 2:4] - a[:, :2]).clip(0).prod(-1), (b[:, 2:4] - b[:, :2]).clip(0).prod(-1)
    union = area_a[:, None] + area_b - shared
    return shared / np.maximum(union, 1e-9), shared / np.maximum(area_a[:, None], 1e-9)


def matched(found: Array, true: Array, unscored: Array) -> NDArray[np.int8]:
    """(thresholds, N) RIGHT, WRONG or NEITHER for the boxes of one class on one picture, sorted by falling score."""
    marks = np.full((len(THRESHOLDS), len(found)), WRONG, np.int8)
    iou = overlaps(found, true)[0]
    free = np.ones((len(THRESHOLDS), len(true)), bool)
    each = np.arange(len(THRESHOLDS))
    for n in range(len(found)):
        if len(true):
            open_iou = np.where(free, iou[n], -1.0)
            best = open_iou.argmax(1)
            hit = open_iou[each, best] >= THRESHOLDS
            marks[hit, n] = RIGHT
            free[each[hit], best[hit]] = False
    if len(unscored):
        covered = overlaps(found, unscored)[1].max(1, initial=0.0)
        marks[(marks == WRONG) & (covered[None] >= THRESHOLDS[:, None])] = NEITHER
    return marks


@dataclass(frozen=True)
class ClassHits:
    """All detections of a class by falling score."""

    scores: Array
    unit: Array
    """(N,) picture of each."""
    right: Array
    """(thresholds, N) bool."""
    wrong: Array
    """(thresholds, N) bool."""
    true_counts: Array
    """(pictures,) true boxes of the class."""

    def average_precision(self, weights: Array | None) -> Array:
        """(thresholds,) AP, each picture counted `weights` times (None: once); nan where the class is absent."""
        n_true = self.true_counts.sum() if weights is None else float(self.true_counts @ weights)
        if n_true == 0:
            return np.full(len(THRESHOLDS), np.nan)
        w = 1.0 if weights is None else weights[self.unit]
        right, wrong = np.cumsum(self.right * w, 1), np.cumsum(self.wrong * w, 1)
        precision = right / np.maximum(right + wrong, 1e-9)
        envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        return np.asarray((np.diff(right, prepend=0.0, axis=1) * envelope).sum(1) / n_true)


class BoxScorer:
    """Predictions (n, 6) and truths (m, 5), one pair a picture, compared once. See tasks/detect.py for the columns."""

    def __init__(self, predictions: Sequence[Any], truths: Sequence[Any], classes: Sequence[str], shown: float) -> None:
        self.classes, self.shown, self.n = list(classes), shown, len(predictions)
        self.hits = [self.compared(predictions, truths, c) for c in range(len(self.classes))]

    @property
    def n_units(self) -> int:
        """Pictures."""
        return self.n

    def compared(self, predictions: Sequence[Any], truths: Sequence[Any], c: int) -> ClassHits:
        """Every detection of class c held against the truth."""
        scores, units, marks, counts = [], [], [np.zeros((len(THRESHOLDS), 0), np.int8)], np.zeros(self.n)
        for unit, (made, truth) in enumerate(zip(predictions, truths, strict=True)):
            found = made[made[:, 5] == c]
            found = found[np.argsort(-found[:, 4], kind="stable")]
            true = truth[truth[:, 4] == c]
            counts[unit] = len(true)
            if not len(found):
                continue
            scores.append(found[:, 4])
            units.append(np.full(len(found), unit))
            marks.append(matched(found, true, truth[truth[:, 4] == -2 - c]))
        score = np.concatenate([np.zeros(0), *scores])
        order = np.argsort(-score, kind="stable")
        unit_of = np.concatenate([np.zeros(0, np.int64), *units])[order]
        mark = np.concatenate(marks, 1)[:, order]
        return ClassHits(score[order], unit_of, mark == RIGHT, mark == WRONG, counts)

    def values(self, rows: Array | None = None) -> dict[str, float]:
        """map_50, map_50_95, ap_50 of each class, precision and recall at IoU 0.5 of the boxes that are shown."""
        weights = None if rows is None else np.bincount(rows, minlength=self.n).astype(float)
        ap = np.array([hits.average_precision(weights) for hits in self.hits])
        present = ~np.isnan(ap[:, 0])
        values = {
            "map_50": float(ap[present, 0].mean()) if present.any() else float("nan"),
            "map_50_95": float(ap[present].mean()) if present.any() else float("nan"),
        }
        w = np.ones(self.n) if weights is None else weights
        right = sum(float((h.right[0] * w[h.unit])[h.scores >= self.shown].sum()) for h in self.hits)
        wrong = sum(float((h.wrong[0] * w[h.unit])[h.scores >= self.shown].sum()) for h in self.hits)
        n_true = sum(float(h.true_counts @ w) for h in self.hits)
        values["precision_50"] = right / (right + wrong) if right + wrong else 0.0
        values["recall_50"] = right / n_true if n_true else float("nan")
        return values | {f"ap_50_{name}": float(v) for name, v in zip(self.classes, ap[:, 0], strict=True)}
