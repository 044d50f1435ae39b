"""Near copies across splits: held-out proteins that share most of their short pieces with one training protein.

Two sequences with a share p of equal residues have about p^K of their pieces of K residues in common, so half of the
pieces at K = 5 means about 87% identity. It is a lower bound: a piece that many training proteins have counts for the
first few of them only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

K, BASE = 5, 32
FEW = 8
"""Training proteins that a piece counts for."""
SHARED = 0.5
"""Share of a protein's pieces from which on it is a near copy."""


def pieces(tokens: NDArray[np.integer], owner: int) -> NDArray[np.int64]:
    """(P, 2) different pieces of a protein as numbers, beside its own number."""
    if len(tokens) < K:
        return np.empty((0, 2), np.int64)
    codes = np.zeros(len(tokens) - K + 1, np.int64)
    for i in range(K):
        codes = codes * BASE + tokens[i : len(tokens) - K + 1 + i]
    codes = np.unique(codes)
    return np.stack([codes, np.full(len(codes), owner)], 1)


def near_copies(
    train: Sequence[NDArray[np.integer]], held: Sequence[NDArray[np.integer]]
) -> list[tuple[int, int, float]]:
    """(held number, training number, share of its pieces) of every near copy among `held`."""
    if not train or not held:
        return []
    known = np.concatenate([pieces(tokens, i) for i, tokens in enumerate(train)])
    known = known[np.argsort(known[:, 0], kind="stable")]
    codes = known[:, 0]
    found = []
    for number, tokens in enumerate(held):
        own = pieces(tokens, 0)[:, 0]
        first = np.searchsorted(codes, own)
        n_have = np.minimum(np.searchsorted(codes, own, "right") - first, FEW)
        if not n_have.any():
            continue
        at = np.repeat(first, n_have) + np.arange(n_have.sum()) - np.repeat(np.cumsum(n_have) - n_have, n_have)
        owners, counts = np.unique(known[at, 1], return_counts=True)
        best = int(np.argmax(counts))
        if counts[best] >= SHARED * len(own):
            found.append((number, int(owners[best]), float(counts[best] / len(own))))
    return found
