"""Odd rows of a table: the isolation forest (Liu, Ting and Zhou 2008). What a few random cuts set apart from all others is odd.

In plain numpy, so that the fitted forest is numbers in preprocessing.json and a new row can be flagged by predict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
N_TREES, N_SAMPLED = 100, 256
"""As in the paper's section 4.3."""


def fit_forest(x: Floats, share: float) -> dict[str, Any]:
    """From whole training rows (n, F): trees, and the score above which a row is odd, so that `share` of these are."""
    rng = np.random.default_rng(0)
    n = min(N_SAMPLED, len(x))
    deepest = max(1, math.ceil(math.log2(max(2, n))))
    trees = []
    for _ in range(N_TREES):
        nodes: list[list[float]] = []
        grow(x[rng.choice(len(x), n, replace=False)], deepest, rng, nodes)
        trees.append(nodes)
    fitted: dict[str, Any] = {"n_sampled": n, "trees": trees, "limit": 1.0}
    fitted["limit"] = float(np.quantile(forest_scores(fitted, x), 1 - share)) if len(x) else 1.0
    return fitted


def grow(x: Floats, left: int, rng: np.random.Generator, nodes: list[list[float]]) -> int:
    """Add the tree of rows (n, F) to `nodes` and give its number. A node is [column, cut, left, right], or a leaf
    [-1, what its rows add to the path]."""
    at = len(nodes)
    nodes.append([-1, beyond(len(x))])
    low, high = (x.min(0), x.max(0)) if len(x) else (np.zeros(0), np.zeros(0))
    split = np.flatnonzero(high > low)
    if left and len(x) > 1 and len(split):
        column = int(rng.choice(split))
        cut = float(rng.uniform(low[column], high[column]))
        is_left = x[:, column] < cut
        below = grow(x[is_left], left - 1, rng, nodes)
        nodes[at] = [column, cut, below, grow(x[~is_left], left - 1, rng, nodes)]
    return at


def beyond(n: int) -> float:
    """c(n): mean path of an unsuccessful search in a binary tree of n (the paper's equation 1)."""
    if n < 2:
        return 0.0
    return 1.0 if n == 2 else 2 * (math.log(n - 1) + float(np.euler_gamma)) - 2 * (n - 1) / n


def forest_scores(fitted: Mapping[str, Any], x: Floats) -> Floats:
    """(n, F) -> (n,) 2^(-mean path / c(sampled)): near 1 is odd, below 0.5 is usual."""
    total = np.zeros(len(x))
    for nodes in fitted["trees"]:
        columns = np.array([node[0] for node in nodes], int)
        value = np.array([node[1] for node in nodes])
        left = np.array([node[2] if len(node) > 2 else 0 for node in nodes], int)
        right = np.array([node[3] if len(node) > 2 else 0 for node in nodes], int)
        at, depth = np.zeros(len(x), int), np.zeros(len(x))
        going = np.flatnonzero(columns[at] >= 0)
        while len(going):
            node = at[going]
            goes_left = x[going, columns[node]] < value[node]
            at[going] = np.where(goes_left, left[node], right[node])
            depth[going] += 1
            going = going[columns[at[going]] >= 0]
        total += depth + value[at]
    return np.asarray(2 ** (-total / len(fitted["trees"]) / max(1e-9, beyond(fitted["n_sampled"]))))


def is_odd(fitted: Mapping[str, Any], x: Floats) -> NDArray[np.bool_]:
    """(n,) whether a row's score is above the limit."""
    return np.asarray(forest_scores(fitted, x) > fitted["limit"])
