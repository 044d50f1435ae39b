"""Scores of a predicted structure against the true one, on CA atoms. (n, 3) places in Angstrom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Known = NDArray[np.bool_]
THRESHOLDS, RADIUS = (0.5, 1.0, 2.0, 4.0), 15.0
SEEDS = 24
"""Stretches of each length from which the best superposition is looked for."""


@dataclass(frozen=True)
class Folded:
    """A predicted chain."""

    ca: Floats
    """(L, 3) Angstrom."""
    backbone: NDArray[np.float32] | None = None
    """(L, 3, 3) N, CA, C."""
    lddt: NDArray[np.float32] | None = None
    """(L,) predicted lDDT, 0 to 1."""
    contacts: NDArray[np.float32] | None = None
    """(L, L) predicted share of CB within 8 Angstrom."""


@dataclass(frozen=True)
class Native:
    """A true chain."""

    ca: Floats
    cb: Floats
    known: Known
    """(L,) where CA is known."""
    known_cb: Known


def distances(places: Floats) -> Floats:
    """(n, 3) -> (n, n)."""
    return np.asarray(np.linalg.norm(places[:, None] - places[None], axis=-1))


def lddt_by_residue(made: Floats, true: Floats) -> Floats:
    """(n,) local distance difference test of CA atoms (Mariani et al. 2013): of the distances up to 15 Angstrom from a
    residue to others, the share that is kept within 0.5, 1, 2 and 4 Angstrom, on average. NaN without any."""
    kept, counted = kept_distances(made, true)
    return np.asarray(kept.sum(1) / np.where(counted.sum(1), counted.sum(1), np.nan))


def lddt(made: Floats, true: Floats) -> float:
    """The same over all distances of the chain."""
    kept, counted = kept_distances(made, true)
    return float(kept.sum() / counted.sum()) if counted.any() else float("nan")


def kept_distances(made: Floats, true: Floats) -> tuple[Floats, Known]:
    """(share of tolerances that each distance is kept in, which count), each (n, n)."""
    near = distances(true)
    counted = (near < RADIUS) & ~np.eye(len(near), dtype=bool)
    off = np.abs(distances(made) - near)
    return np.mean([off < limit for limit in THRESHOLDS], 0) * counted, counted


def drmsd(made: Floats, true: Floats) -> float:
    """Root of the mean squared error of all distances (AlQuraishi 2019). A mirror image is not noticed."""
    i, j = np.triu_indices(len(true), 1)
    return float(np.sqrt(np.mean((distances(made) - distances(true))[i, j] ** 2)))


def superposed(made: Floats, true: Floats, weights: Floats) -> Floats:
    """made moved and turned, without mirroring, to fit true best in weighted least squares (Kabsch 1976). Any leading
    shape: made and true (..., n, 3), weights (..., n)."""
    w = weights[..., None] / weights.sum(-1)[..., None, None]
    middle, aim = (made * w).sum(-2, keepdims=True), (true * w).sum(-2, keepdims=True)
    u, _, v = np.linalg.svd(np.swapaxes((made - middle) * w, -1, -2) @ (true - aim))
    sign = np.sign(np.linalg.det(u) * np.linalg.det(v))
    u = np.concatenate([u[..., :2], u[..., 2:] * sign[..., None, None]], -1)
    return np.asarray((made - middle) @ (u @ v) + aim)


def rmsd(made: Floats, true: Floats) -> float:
    """Root mean squared distance after the best superposition."""
    off = superposed(made, true, np.ones(len(true))) - true
    return float(np.sqrt((off**2).sum(-1).mean()))


def tm_score(made: Floats, true: Floats, n_residues: int) -> float:
    """TM-score (Zhang and Skolnick 2004): mean of 1 / (1 + (d / d0)^2) over a chain of n_residues, at the superposition
    where it is highest. That is looked for from superpositions of stretches, each refined on the residues that it brings
    near, as the authors' program does."""
    n = len(true)
    d0 = 1.24 * (n_residues - 15) ** (1 / 3) - 1.8 if n_residues > 21 else 0.5
    d0 = max(d0, 0.5)
    lengths = sorted({n, max(4, n // 2), max(4, n // 4), 4} & set(range(1, n + 1)))
    starts = [(length, s) for length in lengths for s in np.unique(np.linspace(0, n - length, SEEDS).astype(int))]
    at = np.arange(n)
    weights = np.array([(at >= s) & (at < s + length) for length, s in starts], float)
    best = 0.0
    for _ in range(8):
        off = ((superposed(made[None], true[None], weights) - true) ** 2).sum(-1)
        best = max(best, float((1 / (1 + off / d0**2)).sum(-1).max()))
        nearest = np.sort(off, -1)[:, min(3, n - 1)]  # at least four residues hold a superposition
        weights = (off <= np.maximum(nearest, (d0 + 1) ** 2)[:, None]).astype(float)
    return best / n_residues


class FoldScorer:
    """One row of scores a chain; every metric is the median over chains."""

    def __init__(self, made: list[Folded], true: list[Native]) -> None:
        self.n_units = len(true)
        self.table: dict[str, Floats] = {}
        found = [chain_scores(m, t) for m, t in zip(made, true, strict=True)]
        for name in found[0] if found else ():
            self.table[name] = np.array([f[name] for f in found])

    def values(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """lddt, lddt_mean, tm_score, rmsd, drmsd, lddt_error."""
        rows = np.arange(self.n_units) if rows is None else rows
        values = {name: middle(column[rows]) for name, column in self.table.items()}
        values["lddt_mean"] = middle(self.table["lddt"][rows], mean=True)
        return values if np.isfinite(values["lddt_error"]) else {k: v for k, v in values.items() if k != "lddt_error"}


def middle(values: Floats, mean: bool = False) -> float:
    """Median or mean of what is a number; NaN of nothing."""
    values = values[np.isfinite(values)]
    return float(np.mean(values) if mean else np.median(values)) if len(values) else float("nan")


def chain_scores(made: Folded, true: Native) -> dict[str, float]:
    """Every score of one chain, over the residues whose CA is known; NaN with fewer than three."""
    ours, aim = made.ca[true.known].astype(float), true.ca[true.known].astype(float)
    if len(aim) < 3:
        return dict.fromkeys(("lddt", "tm_score", "rmsd", "drmsd", "lddt_error"), float("nan"))
    error = float("nan")
    if made.lddt is not None:
        error = middle(np.abs(made.lddt[true.known] - lddt_by_residue(ours, aim)), mean=True)
    return {
        "lddt": lddt(ours, aim), "tm_score": tm_score(ours, aim, len(aim)), "rmsd": rmsd(ours, aim),
        "drmsd": drmsd(ours, aim), "lddt_error": error,
    }  # fmt: skip
