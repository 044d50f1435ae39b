"""A missing number filled from the rows most like its own: k nearest neighbours (Troyanskaya et al. 2001), in plain numpy so
that predict needs no library and no training data but the reference rows in preprocessing.json.

n rows, m reference rows, F numbers. The distance of two rows is that of the numbers both have, scaled up for those that one
of them lacks (as scikit-learn's KNNImputer has it), each number in units of its deviation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
N_REFERENCE = 1000
"""Training rows kept to look among, evenly spaced."""
N_AT_ONCE = 1024


def fit_neighbours(x: Floats, k: int) -> dict[str, Any]:
    """From training rows (n, F), NaN where missing."""
    filled = np.where(np.isnan(x), 0.0, x)
    n_known = np.maximum(1, (~np.isnan(x)).sum(0))
    mean = filled.sum(0) / n_known
    std = np.sqrt((np.where(np.isnan(x), 0.0, x - mean) ** 2).sum(0) / n_known)
    rows = x[np.arange(min(len(x), N_REFERENCE)) * len(x) // max(1, min(len(x), N_REFERENCE))]
    listed = [[None if np.isnan(v) else float(v) for v in row] for row in rows]
    return {"k": k, "std": np.where(std > 0, std, 1.0).tolist(), "rows": listed}


def fill_neighbours(fitted: Mapping[str, Any], x: Floats) -> Floats:
    """(n, F) with each NaN filled by the mean over the k nearest rows that have the number; NaN stays where none has."""
    std = np.array(fitted["std"])
    reference = np.array([[np.nan if v is None else v for v in row] for row in fitted["rows"]], float).reshape(
        -1, len(std)
    )
    found = x.copy()
    lacking = np.flatnonzero(np.isnan(x).any(1))
    for first in range(0, len(lacking), N_AT_ONCE):
        rows = lacking[first : first + N_AT_ONCE]
        far = distances(x[rows] / std, reference / std)
        for j in np.flatnonzero(np.isnan(x[rows]).any(0)):
            has = np.flatnonzero(~np.isnan(reference[:, j]))
            wants = np.flatnonzero(np.isnan(x[rows, j]))
            k = min(fitted["k"], len(has))
            if k:
                near = has[np.argsort(far[np.ix_(wants, has)], axis=1, kind="stable")[:, :k]]
                found[rows[wants], j] = reference[near, j].mean(1)
    return found


def distances(x: Floats, reference: Floats) -> Floats:
    """(n, F), (m, F) -> (n, m) squared distances; infinite where two rows share no number."""
    has, has_too = (~np.isnan(x)).astype(float), (~np.isnan(reference)).astype(float)
    a, b = np.nan_to_num(x), np.nan_to_num(reference)
    shared = has @ has_too.T
    squares = (a * a) @ has_too.T - 2 * a @ b.T + has @ (b * b).T
    return np.where(shared > 0, np.maximum(squares, 0) * x.shape[1] / np.maximum(shared, 1), np.inf)
