"""From sample ids to token arrays: which stretch of the token file each sample is. numpy only, for light workers.

A sample is a window of T tokens and the T that follow each of them. Shuffled, the windows of an epoch start at a
shift of their own (a pure function of seed and epoch), so that no token stays at a window's border for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from danlu.data.order import Ids, Order, hashed

# N tokens in the file, T context, B rows, n windows of an epoch

Pack = Literal["stream", "separate"]


class Tokens(Protocol):
    """What a loader reads: a token file and where its documents start."""

    @property
    def tokens(self) -> NDArray[Any]:
        """(N,) token ids, usually a memory map."""

    @property
    def docs(self) -> NDArray[Any]:
        """(D + 1,) offset of each document in `tokens`; the last entry is N."""


def n_windows(n_tokens: int, context: int, shuffle: bool) -> int:
    """Samples of one epoch. Shuffled: as many as always fit, whatever the shift. In order: all, the last one padded."""
    if shuffle:
        return max(1, n_tokens // context - 1)
    return -(-(n_tokens - 1) // context)


@dataclass(frozen=True)
class Windows:
    """Every batch of a token file, by step."""

    tokens: NDArray[Any]
    docs: NDArray[Any]
    context: int
    order: Order
    pack: Pack = "stream"
    part: slice | None = None
    """The rows of each batch that are read here (a rank's), or all."""

    @cached_property
    def table(self) -> NDArray[Any]:
        """(N - T, T + 1) view of every window there is; nothing is copied. A file shorter than one is padded."""
        plain = np.asarray(self.tokens)
        if len(plain) <= self.context:
            plain = np.concatenate([plain, np.zeros(self.context + 1 - len(plain), plain.dtype)])
        return np.lib.stride_tricks.sliding_window_view(plain, self.context + 1)

    def starts(self, step: int) -> Ids:
        """(B,) where the windows of update `step` start."""
        ids, epochs = self.order.at(step, self.part)
        starts = ids * self.context
        if self.order.shuffle:
            n_shifts = len(self.tokens) - self.order.n_samples * self.context
            starts += (hashed(self.order.seed, epochs) % np.uint64(n_shifts)).astype(np.int64)
        return starts

    def read(self, step: int) -> list[NDArray[Any]]:
        """[tokens (B, T + 1) as stored, documents (B, T + 1) int32 when kept apart] of update `step`."""
        starts = self.starts(step)
        rows = self.table[np.minimum(starts, len(self.table) - 1)]
        for i in np.flatnonzero(starts >= len(self.table)):
            known = self.tokens[starts[i] :]
            rows[i, : len(known)] = known
            rows[i, len(known) :] = 0
        return [rows, self.documents(starts)] if self.pack == "separate" else [rows]

    def documents(self, starts: Ids) -> NDArray[np.int32]:
        """(B, T + 1) number of the document at each position, counted from the window's first: 0, 0, 1, 1, 2, ..."""
        marks = np.zeros((len(starts), self.context + 1), np.int32)
        first = np.searchsorted(self.docs, starts, side="right")
        last = np.searchsorted(self.docs, starts + self.context, side="right")
        for row, start, i, j in zip(marks, starts, first, last, strict=True):
            row[self.docs[i:j].astype(np.int64) - start] = 1
        return np.cumsum(marks, axis=1, dtype=np.int32)

    def targets(self, step: int, read: list[NDArray[Any]]) -> NDArray[np.int64]:
        """(B, T) the token after each; -1 past the end of the file, and where it begins another document."""
        targets = read[0][:, 1:].astype(np.int64)
        if not self.order.shuffle:
            n_known = len(self.tokens) - 1 - self.starts(step)
            if n_known.min() < self.context:
                targets[np.arange(self.context) >= n_known[:, None]] = -1
        if self.pack == "separate":
            targets[read[1][:, 1:] != read[1][:, :-1]] = -1
        return targets
