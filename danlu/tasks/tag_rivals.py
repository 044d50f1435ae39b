"""Rivals of a tagger, counted on the training split: the commonest class, the class by token, a window of tokens.

The window is naive Bayes over the tokens around a position, each with its offset: what GOR says of a protein from its
sequence alone (Garnier, Osguthorpe and Robson 1978), without their decision constants.
C classes, V tokens, W offsets, P positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Split

Floats = NDArray[np.float64]
PART, MAX_TRAIN = 256, 20_000
MAX_TABLE = 1 << 26
"""Numbers in the table of the window; the window is made smaller until it fits."""


def parts(split: Split, most: int | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """(tokens (B, T), targets (B, T), inside (B, T)) of a split, in pieces; `most` evenly spaced samples of it."""
    n = len(split)
    rows = np.arange(n) if most is None or n <= most else np.arange(most) * n // most
    for first in range(0, len(rows), PART):
        batch = split.batch(rows[first : first + PART]).tensors
        tokens, targets = batch["tokens"].numpy(), batch["targets"].numpy()
        lengths = batch["lengths"].numpy() if "lengths" in batch else np.full(len(tokens), tokens.shape[1])
        yield tokens, targets, np.arange(tokens.shape[1]) < lengths[:, None]


def around(tokens: NDArray[Any], inside: NDArray[Any], reach: int) -> Iterator[NDArray[np.int64]]:
    """(B, T) the token at each offset from -reach to reach; 0 beyond the ends."""
    n = tokens.shape[1]
    padded = np.pad(np.where(inside, tokens, 0), ((0, 0), (reach, reach)))
    for i in range(2 * reach + 1):
        yield padded[:, i : i + n]


def tag_rivals(train: Split, split: Split, vocab_size: int, n_classes: int, window: int) -> dict[str, list[Any]]:
    """Shares (T, C) of every sample of `split`, by rival."""
    while window > 1 and window * vocab_size * n_classes > MAX_TABLE:
        window -= 2
    reach = window // 2
    counts = np.zeros((2 * reach + 1, vocab_size, n_classes))
    prior = np.zeros(n_classes)
    size = vocab_size * n_classes
    for tokens, targets, inside in parts(train, MAX_TRAIN):
        known = targets >= 0
        prior += np.bincount(targets[known], minlength=n_classes)
        for i, seen in enumerate(around(tokens, inside, reach)):
            cells = seen[known] * n_classes + targets[known]
            counts[i] += np.bincount(cells, minlength=size).reshape(vocab_size, n_classes)
    share = (prior + 1) / (prior + 1).sum()
    by_token = counts[reach] + share
    by_token /= by_token.sum(1, keepdims=True)
    logs = np.log(counts + share) - np.log(counts.sum(1, keepdims=True) + share.sum())
    found: dict[str, list[Any]] = {"most frequent class": [], "class by token": [], f"window of {2 * reach + 1}": []}
    if reach == 0:
        found.pop("window of 1")
    for tokens, _, inside in parts(split):
        told = {
            "most frequent class": np.broadcast_to(share, (*tokens.shape, n_classes)),
            "class by token": by_token[tokens],
        }
        if reach:
            scores = np.log(share) + sum(logs[i][seen] for i, seen in enumerate(around(tokens, inside, reach)))
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            told[f"window of {2 * reach + 1}"] = scores / scores.sum(-1, keepdims=True)
        for name, shares in told.items():
            found[name] += [row[mask] for row, mask in zip(shares, inside, strict=True)]
    return found
