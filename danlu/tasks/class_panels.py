"""What a classification has to show: confusion, mistakes, calibration, ROC."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Split
from danlu.tasks.metrics_classes import N_BINS, ClassScorer, Floats, LabelScorer, drawn
from danlu.tasks.panels import lines, listing, matrix

N_WORST, MAX_NAMED, N_CURVE_POINTS, MAX_CURVES = 12, 30, 100, 8


def class_panels(shares: Floats, truths: NDArray[np.int64], names: list[str], split: Split) -> list[dict[str, Any]]:
    """Panels of (U, C) shares against (U,) classes."""
    known = np.flatnonzero(truths >= 0)
    if not len(known):
        return []
    scorer = ClassScorer(shares, truths)
    counts = drawn(None, scorer.n_units)
    shown = names if len(names) <= MAX_NAMED else []
    confusion = matrix(
        "Confusion", scorer.confusion(counts).tolist(), shown, shown, "Rows: truth. Columns: prediction."
    )
    said = shares.argmax(1)
    wrong = known[said[known] != truths[known]]
    worst = wrong[np.argsort(-shares[wrong, said[wrong]], kind="stable")][:N_WORST]
    rows = [(split.name(int(i)), names[truths[i]], names[said[i]], f"{shares[i, said[i]]:.1%}") for i in worst]
    mistakes = listing(
        "Surest mistakes", ["sample", "truth", "prediction", "share"], rows, "Look here for wrong labels in the data."
    )
    right = said[known] == truths[known]
    found = [confusion, by_class(scorer, names), mistakes, calibration(shares[known].max(1), right)]
    wanted = range(1, 2) if len(names) == 2 else range(min(len(names), MAX_CURVES))
    curves = {names[c]: roc(shares[known, c], truths[known] == c) for c in wanted}
    drawn_curves = {name: curve for name, curve in curves.items() if curve is not None}
    note = "Each class against the rest: up and left is better, the diagonal is chance."
    return [*found, lines("ROC", drawn_curves, "false positives", "true positives", note)] if drawn_curves else found


def by_class(scorer: ClassScorer, names: list[str]) -> dict[str, Any]:
    """Recall, precision and F1 of each class, the worst first."""
    confusion = scorer.confusion(drawn(None, scorer.n_units))
    rows = [(name, *scored) for name, scored in zip(names, per_class(confusion), strict=True)]
    rows.sort(key=lambda row: row[4])
    told = [(name, f"{n:,.0f}", f"{recall:.3f}", f"{precision:.3f}", f"{f1:.3f}") for name, n, recall, precision, f1 in rows]  # fmt: skip
    return listing("By class", ["class", "samples", "recall", "precision", "F1"], told[:MAX_NAMED], "Worst first.")


def per_class(confusion: Floats) -> list[tuple[float, float, float, float]]:
    """(true, recall, precision, F1) of each class of a (C, C) confusion; 0 where there is nothing."""
    right, true, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    recall, precision = right / np.maximum(true, 1), right / np.maximum(said, 1)
    f1 = 2 * right / np.maximum(true + said, 1)
    return [tuple(map(float, row)) for row in np.stack([true, recall, precision, f1], 1)]  # type: ignore[misc]


def calibration(confidence: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy over confidence, in bins."""
    bins = np.minimum((confidence * N_BINS).astype(np.int64), N_BINS - 1)
    n = np.bincount(bins, minlength=N_BINS)
    at = np.flatnonzero(n)
    x, y = (np.bincount(bins, v, N_BINS)[at] / n[at] for v in (confidence, right.astype(float)))
    series = {"model": (x.tolist(), y.tolist()), "ideal": ([0.0, 1.0], [0.0, 1.0])}
    return lines("Calibration", series, "confidence", "accuracy", "On the diagonal, 80% sure means 80% right.")


def roc(scores: Floats, positive: NDArray[np.bool_]) -> tuple[list[float], list[float]] | None:
    """(false, true positive rates) at about a hundred thresholds; None where one side is empty."""
    n_yes, n_no = int(positive.sum()), int((~positive).sum())
    if not n_yes or not n_no:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    yes, no = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    at = np.unique(np.linspace(0, len(ends) - 1, N_CURVE_POINTS).astype(int))
    return [0.0, *(no[at] / n_no).tolist()], [0.0, *(yes[at] / n_yes).tolist()]


def label_panels(shares: Floats, truths: Floats, names: list[str]) -> list[dict[str, Any]]:
    """Panels of (U, L) shares of yes against labels: scores by label, calibration, ROC."""
    scorer = LabelScorer(shares, truths)
    hits, yes, said = scorer.hits.sum(0), scorer.yes.sum(0), scorer.said.sum(0)
    f1 = 2 * hits / np.maximum(yes + said, 1)
    rows = [
        (names[i], f"{yes[i]:,.0f}", f"{hits[i] / max(yes[i], 1):.3f}", f"{hits[i] / max(said[i], 1):.3f}", f"{f1[i]:.3f}")
        for i in np.argsort(f1)[:MAX_NAMED]
    ]  # fmt: skip
    columns = ["label", "samples", "recall", "precision", "F1"]
    known = truths >= 0
    sure = np.maximum(shares, 1 - shares)[known]
    found = [
        listing("By label", columns, rows, "Worst first."),
        calibration(sure, ((shares >= 0.5) == (truths > 0.5))[known]),
    ]
    curves = {n: roc(shares[known[:, i], i], truths[known[:, i], i] > 0.5) for i, n in enumerate(names[:MAX_CURVES])}
    drawn_curves = {name: curve for name, curve in curves.items() if curve is not None}
    note = "Each label by itself: up and left is better, the diagonal is chance."
    return [*found, lines("ROC", drawn_curves, "false positives", "true positives", note)] if drawn_curves else found
