"""How sure a score is: percentile bootstrap (Efron and Tibshirani 1993, chapter 13) over whole documents or blocks.

Tokens of one text are not independent, so documents are resampled whole. With too few documents, blocks of
neighbouring windows stand in for them (Kunsch 1989), which keeps the dependence inside a block.
"""

# U units (documents or blocks), R resamples

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_DOCUMENTS = 30
"""Fewer documents than this say too little about other documents."""
N_BLOCKS = 100
"""Blocks that a few long documents are cut into."""
MAX_UNITS = 4096
"""More units than this are joined in runs: the interval hardly changes, and time and memory stay bounded."""
PIECE = 1 << 22
"""Draws held in memory at once."""


@dataclass(frozen=True)
class Units:
    """What is resampled."""

    by: str
    """documents or windows: which sums are grouped."""
    starts: NDArray[np.int64]
    """(U,) the first document or window of each unit, ascending from 0."""
    method: str
    """A sentence for the reader."""


def units(n_documents: int, n_windows: int) -> Units:
    """Documents when there are enough of them, else blocks of consecutive windows."""
    if n_documents >= MIN_DOCUMENTS:
        starts = runs(n_documents, min(n_documents, MAX_UNITS))
        what = f"{n_documents} documents" if len(starts) == n_documents else f"{len(starts)} runs of documents"
        return Units("documents", starts, f"95% intervals: percentile bootstrap over {what}.")
    starts = runs(n_windows, min(n_windows, N_BLOCKS))
    note = f"95% intervals: percentile bootstrap over {len(starts)} blocks of consecutive windows"
    return Units("windows", starts, f"{note}, because there are only {n_documents} documents.")


def runs(n: int, n_runs: int) -> NDArray[np.int64]:
    """Starts of n_runs runs of nearly equal length over n things."""
    return np.arange(n_runs, dtype=np.int64) * n // max(1, n_runs)


def ratio_interval(
    numerator: NDArray[Any], denominator: NDArray[Any], n_resamples: int, seed: int = 0
) -> tuple[float, float]:
    """2.5% and 97.5% points of sum(numerator) / sum(denominator) over resampled units. (U,), (U,)."""
    n_units = len(numerator)
    if n_units < 2:
        raise ValueError("an interval needs at least two units")
    rng = np.random.default_rng(seed)
    sums = np.stack([numerator, denominator]).astype(float)
    found: list[NDArray[np.float64]] = []
    for start in range(0, n_resamples, max(1, PIECE // n_units)):
        rows = min(max(1, PIECE // n_units), n_resamples - start)
        times = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=rows)
        top, bottom = sums @ times.T
        found.append(top[bottom > 0] / bottom[bottom > 0])
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return float(low), float(high)
