"""What a tagging has to show: confusion, classes, accuracy by length and by place, the worst sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from danlu.base.contracts import Split
from danlu.tasks.class_panels import calibration, per_class
from danlu.tasks.panels import lines, listing, matrix
from danlu.tasks.samples import Panel

N_WORST, N_BINS, MAX_NAMED, MAX_LETTERS, MIN_SCORED = 12, 8, 30, 120, 20


def tag_panels(predictions: Sequence[Any], truths: Sequence[Any], names: list[str], split: Split) -> list[Panel]:
    """Panels of (T, C) shares against (T,) classes of each sequence."""
    sizes = np.array([len(t) for t in truths])
    unit, place = np.repeat(np.arange(len(truths)), sizes), np.concatenate([np.arange(n) for n in sizes])
    shares, truth = np.concatenate(list(predictions)), np.concatenate(list(truths))
    known = truth >= 0
    if not known.any():
        return []
    unit, place, shares, truth = unit[known], place[known], shares[known], truth[known]
    said = shares.argmax(1)
    right = said == truth
    n = len(names)
    confusion = np.bincount(truth * n + said, minlength=n * n).reshape(n, n).astype(float)
    shown = names if n <= MAX_NAMED else []
    n_own = np.bincount(unit, minlength=len(truths))
    own = np.bincount(unit, right, len(truths)) / np.maximum(n_own, 1)
    return [
        matrix("Confusion", confusion.tolist(), shown, shown, "Positions. Rows: truth. Columns: prediction."),
        by_class(confusion, names),
        by_length(sizes, own, n_own),
        by_place(place, sizes[unit], right),
        calibration(shares.max(1), right),
        worst(predictions, truths, names, split, np.where(n_own >= MIN_SCORED, own, 2.0)),
    ]  # fmt: skip


def by_class(confusion: Any, names: list[str]) -> Panel:
    """Recall, precision and F1 of each class."""
    rows = sorted(zip(names, per_class(confusion), strict=True), key=lambda row: row[1][3])
    told = [(name, f"{n:,.0f}", f"{recall:.3f}", f"{precision:.3f}", f"{f1:.3f}") for name, (n, recall, precision, f1) in rows]  # fmt: skip
    return listing("By class", ["class", "positions", "recall", "precision", "F1"], told[:MAX_NAMED], "Worst first.")


def by_length(sizes: Any, own: Any, n_own: Any) -> Panel:
    """Accuracy over the length of a sequence: bins of equally many sequences."""
    order = np.argsort(sizes, kind="stable")
    bins = [b for b in np.array_split(order, min(N_BINS, len(order))) if n_own[b].sum()]
    x = [float(sizes[b].mean()) for b in bins]
    y = [float((own[b] * n_own[b]).sum() / n_own[b].sum()) for b in bins]
    note = "Each point is as many sequences, from short to long."
    return lines("Accuracy by length", {"accuracy": (x, y)}, "positions", "accuracy", note)


def by_place(place: Any, size: Any, right: Any) -> Panel:
    """Accuracy over the distance to the nearer end."""
    away = np.minimum(place, size - 1 - place)
    edges = np.array([0, 1, 2, 3, 5, 8, 12, 20, 32, 50, 80, 1 << 30])
    which = np.digitize(away, edges) - 1
    at = [b for b in range(len(edges) - 1) if (which == b).any()]
    y = [float(right[which == b].mean()) for b in at]
    note = "Ends have less around them to tell from."
    return lines(
        "Accuracy by distance to the end",
        {"accuracy": ([float(edges[b]) for b in at], y)},
        "positions",
        "accuracy",
        note,
    )


def worst(predictions: Sequence[Any], truths: Sequence[Any], names: list[str], split: Split, own: Any) -> Panel:
    """The sequences with the lowest accuracy, truth and prediction side by side."""
    rows = []
    for i in np.argsort(own, kind="stable")[:N_WORST]:
        if own[i] > 1:
            continue
        said = predictions[i].argmax(1)
        rows.append((split.name(int(i)), len(said), f"{own[i]:.1%}", told(truths[i], names), told(said, names)))
    note = (
        f"Of sequences with at least {MIN_SCORED} scored positions; the first {MAX_LETTERS} are shown, . is not scored."
    )
    return listing("Worst sequences", ["sample", "positions", "accuracy", "truth", "prediction"], rows, note)


def told(classes: Any, names: list[str]) -> str:
    """Letters, or words, of the first positions."""
    words = ["." if c < 0 else names[c] for c in classes[:MAX_LETTERS]]
    return "".join(words) if all(len(name) == 1 for name in names) else " ".join(words[: MAX_LETTERS // 4])
