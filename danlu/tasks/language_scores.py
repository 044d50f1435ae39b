"""The loss of a language model over a whole split, each target predicted exactly once.

A split is cut into consecutive windows of at most `context` targets; a target is predicted from the tokens before it
in its window. As a stream, windows run over document borders, as in training, and the document-end token (where
there is one) stands before the very first token, so that no token goes unscored. Kept apart, each document has its
own windows and its first token is context only.

Bits per byte divide the nats of all scored targets, document ends included, by the UTF-8 bytes of the scored
targets; a document end costs nats and counts no bytes, so the figure never flatters the model.
"""

# N tokens in the split, W windows, D documents, V vocabulary; B rows and T positions of a batch

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch, Progress

if TYPE_CHECKING:
    import torch

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TokenText:
    """A tokenised split and how it is shown to the model."""

    tokens: NDArray[Any]
    """(N,) ids, usually a memory map."""
    documents: NDArray[Any]
    """(D + 1,) where each document starts in `tokens`; the last entry is N."""
    token_bytes: NDArray[Any]
    """(V,) UTF-8 bytes that each token stands for; 0 for a document end."""
    context: int
    """Most targets in a window."""
    document_end: int | None = None
    """Token after each document, or None."""
    pack: Literal["stream", "separate"] = "stream"
    """Whether windows may run over document borders."""


@dataclass(frozen=True)
class Sums:
    """Sums over units (windows or documents), enough to score and to resample."""

    nats: Floats
    """(U,) loss."""
    n_targets: Ints
    """(U,) scored targets."""
    n_bytes: Ints
    """(U,) bytes of the scored targets."""

    @classmethod
    def zeros(cls, n_units: int) -> Sums:
        """Nothing yet."""
        return cls(np.zeros(n_units), np.zeros(n_units, np.int64), np.zeros(n_units, np.int64))

    def add(self, unit: Ints, nats: Floats, n_bytes: Ints) -> None:
        """Count targets, given the unit of each. (n,) each."""
        low = int(unit.min())
        counts = np.bincount(unit - low)
        here = slice(low, low + len(counts))
        self.nats[here] += np.bincount(unit - low, nats)
        self.n_targets[here] += counts
        self.n_bytes[here] += np.bincount(unit - low, n_bytes).astype(np.int64)

    @property
    def loss(self) -> float:
        """Mean nats per target."""
        return float(self.nats.sum() / max(1, self.n_targets.sum()))

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for each byte of the text."""
        return float(self.nats.sum() / math.log(2) / max(1, self.n_bytes.sum()))

    def grouped(self, starts: Ints) -> Sums:
        """Runs of units joined; `starts` holds the first unit of each group, ascending from 0."""
        parts = [np.add.reduceat(x, starts) for x in (self.nats, self.n_targets, self.n_bytes)]
        return Sums(parts[0], parts[1], parts[2])


@dataclass(frozen=True)
class Windows:
    """Ranges of target positions in `tokens`, ascending. The input of target p is token p - 1."""

    first: Ints
    """(W,)"""
    length: Ints
    """(W,) at least 1, at most the context."""

    def every(self, n_windows: int) -> Windows:
        """At most `n_windows` of them, evenly spaced: always the same ones."""
        if n_windows >= len(self.first):
            return self
        kept = np.arange(n_windows) * len(self.first) // n_windows
        return Windows(self.first[kept], self.length[kept])


def windows_of(text: TokenText) -> Windows:
    """The windows of a split: together they hold every scored target once."""
    if text.pack == "separate":
        starts, ends = text.documents[:-1].astype(np.int64) + 1, text.documents[1:].astype(np.int64)
    else:
        starts = np.array([0 if text.document_end is not None else 1])
        ends = np.array([len(text.tokens)])
    n_windows = np.maximum(0, -(-(ends - starts) // text.context))
    within = np.arange(n_windows.sum()) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    first = np.repeat(starts, n_windows) + within * text.context
    return Windows(first, np.minimum(text.context, np.repeat(ends, n_windows) - first))


def validation_sums(
    model: Any,
    task: Any,
    text: TokenText,
    batch: int,
    device: torch.device,
    n_targets: int | None = None,
    progress: Progress | None = None,
) -> tuple[Sums, Sums]:
    """Sums by window and by document. The model is put in eval mode and back.

    `n_targets` asks for about that many targets only, from evenly spaced windows: a quick look while training.
    """
    import torch

    windows = windows_of(text)
    if n_targets is not None:
        windows = windows.every(max(1, n_targets // text.context))
    by_window, by_document = Sums.zeros(len(windows.first)), Sums.zeros(len(text.documents) - 1)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for n_done, (rows, made) in enumerate(batches(text, windows, batch), start=1):
                moved = made.to(device)
                losses = task.loss_per_target(model(moved), moved).double().cpu().numpy()
                targets = made.tensors["targets"].numpy()
                n_bytes = byte_lengths(text, targets)
                scored = targets >= 0
                at = (windows.first[rows][:, None] + np.arange(targets.shape[1]))[scored]
                document = np.searchsorted(text.documents, at, side="right") - 1
                by_window.add(np.repeat(rows, windows.length[rows]), losses[scored], n_bytes[scored])
                by_document.add(document, losses[scored], n_bytes[scored])
                if progress is not None:
                    progress("evaluate", min(n_done * batch, len(windows.first)), len(windows.first))
    finally:
        model.train(was_training)
    return by_window, by_document


def batches(text: TokenText, windows: Windows, batch: int) -> Iterator[tuple[Ints, Batch]]:
    """(window numbers, Batch) until every window was given. Longest first, so that little is padded; documents kept
    apart are cut to the longest window of their batch, a stream keeps one shape."""
    import torch

    before = -1 if text.document_end is None else text.document_end
    order = np.argsort(-windows.length, kind="stable")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        width = int(windows.length[rows].max()) if text.pack == "separate" else text.context
        tokens, targets = np.zeros((len(rows), width), np.int64), np.full((len(rows), width), -1)
        for row, (first, n) in enumerate(zip(windows.first[rows], windows.length[rows], strict=True)):
            targets[row, :n] = text.tokens[first : first + n]
            tokens[row, 1:n] = targets[row, : n - 1]
            tokens[row, 0] = text.tokens[first - 1] if first else before
        tensors = {"tokens": torch.from_numpy(tokens), "targets": torch.from_numpy(targets)}
        yield rows, Batch(tensors, int(windows.length[rows].sum()))


def byte_lengths(text: TokenText, targets: Ints) -> Ints:
    """UTF-8 bytes of each target; 0 where it is -1 or a document end."""
    lengths = text.token_bytes[np.maximum(targets, 0)].astype(np.int64)
    lengths[targets < 0] = 0
    if text.document_end is not None:
        lengths[targets == text.document_end] = 0
    return lengths
