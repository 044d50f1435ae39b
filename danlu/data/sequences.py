"""A split of sequences of unequal length, end to end on disk: proteins, tagged texts. B sequences, T positions.

tensors: tokens (B, T) int64 padded with 0 to the batch's longest, lengths (B,) int64, and targets, which are
         (B, T) int64 a position (-1: not scored, or padding), (B,) int64 classes, or (B, K) float32 numbers
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch
from danlu.data.order import GOLDEN, mixed

PAD = 0
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Change = Callable[[Ints, NDArray[np.bool_], Words], Ints]
"""(tokens (B, T), inside (B, T), seeds (B,)) -> tokens: a random change of training sequences."""
AT_ONCE = 1 << 17
"""Positions, padding included, that go through a model together while scoring."""
SHIFT, SCALE = np.uint64(40), 2.0**-24


class SequenceSplit:
    """Sequences by number, the shortest first, so that those scored together are of like length."""

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], names: Sequence[str], features: Mapping[str, Any],
        vocabulary: Sequence[str], crop: int = 0, change: Change | None = None,
    ) -> None:  # fmt: skip
        """arrays: tokens (sum of lengths,), offsets (N + 1,), targets; features: of the card; crop and change are for
        training batches."""
        self.tokens, self.offsets, self.targets = arrays["tokens"], arrays["offsets"], arrays["targets"]
        self.names, self.crop, self.change = names, crop, change
        self.per_position, self.vocabulary = bool(features.get("per_position")), vocabulary
        whole = np.diff(self.offsets)
        self.lengths: Ints = (np.minimum(whole, crop) if crop else whole).astype(np.int64)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, rows: Ints, seeds: Words | None = None) -> Batch:
        """Whole sequences; with seeds a window of each of at most `crop` positions, changed."""
        import torch

        starts, lengths = self.offsets[rows].astype(np.int64), np.diff(self.offsets)[rows].astype(np.int64)
        if seeds is not None and self.crop:
            kept = np.minimum(lengths, self.crop)
            share = (mixed(seeds) >> SHIFT).astype(float) * SCALE
            starts, lengths = starts + (share * (lengths - kept + 1)).astype(np.int64), kept
        at = np.arange(max(1, int(lengths.max(initial=1))))
        inside = at < lengths[:, None]
        flat = np.minimum(starts[:, None] + at, max(0, len(self.tokens) - 1))
        tokens = np.where(inside, self.tokens[flat], PAD).astype(np.int64)
        if seeds is not None and self.change is not None:
            tokens = self.change(tokens, inside, seeds)
        tensors = {"tokens": torch.from_numpy(tokens), "lengths": torch.from_numpy(lengths)}
        if self.per_position:
            targets = np.where(inside, self.targets[flat], -1).astype(np.int64)
        else:
            targets = self.targets[rows]
        tensors["targets"] = torch.from_numpy(targets)
        if targets.dtype.kind == "f":
            return Batch(tensors, targets.size, row_targets=np.full(len(rows), targets.shape[1]))
        return Batch(tensors, int((targets >= 0).sum()))

    def name(self, row: int) -> str:
        """1es5-A."""
        return self.names[row]

    @property
    def at_once(self) -> int:
        """Sequences that may be scored together."""
        return max(1, AT_ONCE // max(1, int(np.diff(self.offsets).max(initial=1))))

    def row_tokens(self, row: int) -> list[int]:
        """The whole sequence."""
        return [int(token) for token in self.tokens[self.offsets[row] : self.offsets[row + 1]]]

    def shown(self, tokens: Sequence[int]) -> list[str]:
        """Tokens as one would write them."""
        return [self.vocabulary[token] for token in tokens]


def draws(seeds: Words, n: int, k: int) -> NDArray[np.float64]:
    """(B, n) uniform in [0, 1): number k of each position, a pure function of the sample's seed."""
    step = (np.arange(n, dtype=np.uint64) + np.uint64(1 + (k << 32))) * GOLDEN
    return np.asarray((mixed(seeds[:, None] ^ step) >> SHIFT).astype(float) * SCALE)
