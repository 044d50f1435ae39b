"""What a language model must beat, in bits per byte: counting tokens, counting byte n-grams, and xz.

All are fitted on the training split alone and coded over the bytes that the model is scored on.

    unigram         each token by its own training frequency (Krichevsky-Trofimov: half a count added to each)
    ngram           interpolated modified Kneser-Ney over bytes (Chen and Goodman 1998, section 3; Kneser and Ney 1995)
    xz              LZMA2, preset 9e, of the validation bytes alone
    xz_with_train   how much longer xz gets when the validation bytes follow training bytes
"""

# N bytes of text, G distinct n-grams, H distinct contexts (an n-gram without its last byte)

from __future__ import annotations

import lzma
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Codes = NDArray[np.uint64]
Floats = NDArray[np.float64]

MAX_ORDER = 8
"""Longest n-gram tried. Up to 8 bytes fit a uint64 exactly, so no n-gram ever collides with another."""
CHUNK = 1 << 20
"""Bytes scored at a time, so that memory does not grow with the text scored."""
XZ_FILTERS: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
"""The raw stream: xz's own header and checksum are not held against it."""


def unigram_bits(train_counts: NDArray[np.int64], tokens: NDArray[np.integer[Any]]) -> Floats:
    """Bits of each token under its smoothed training frequency. train_counts (V,), tokens (N,) -> (N,)."""
    p = (train_counts + 0.5) / (train_counts.sum() + 0.5 * len(train_counts))
    bits: Floats = -np.log2(p)[tokens]
    return bits


def xz_bits(text: bytes) -> int:
    """Size in bits of the raw LZMA2 stream of `text` at preset 9e."""
    return 8 * len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=XZ_FILTERS))


@dataclass(frozen=True)
class Level:
    """One order: P(byte | context) = share(context, byte) + backoff(context) * P_of_the_order_below."""

    grams: Codes
    """(G,) sorted; the last byte of the n-gram is the lowest byte of the code."""
    share: Floats
    """(G,) discounted count over the context's total."""
    contexts: Codes
    """(H,) sorted: a gram's code without its last byte."""
    backoff: Floats
    """(H,) discounted mass over the context's total: Sum share + backoff = 1 in every context."""


def codes(text: Bytes, order: int) -> Codes:
    """The n-gram that ends at each byte, as one number; zero bytes stand before the start. (N,) -> (N,)."""
    out = text.astype(np.uint64)
    for back in range(1, min(order, len(text) + 1)):
        out[back:] |= text[: len(text) - back].astype(np.uint64) << np.uint64(8 * back)
    return out


def counted(grams: Codes) -> tuple[Codes, NDArray[np.int64]]:
    """Distinct codes in order and how often each occurs. Sorts `grams` in place."""
    grams.sort()
    starts = run_starts(grams)
    return grams[starts], np.diff(starts, append=len(grams))


def run_starts(ordered: Codes) -> NDArray[np.int64]:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def discounts(counts: NDArray[np.int64]) -> Floats:
    """D for a count of 0, 1, 2 and 3 or more, from the counts of counts (Chen and Goodman 1998, equation 26).

    Too few rare n-grams leave the estimate undefined or outside (0, count): a half is taken then.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.0
    found = [c - (c + 1) * y * n[c + 1] / n[c] if n[c] else 0.0 for c in (1, 2, 3)]
    return np.array([0.0] + [d if 0 < d < c else 0.5 for c, d in zip((1, 2, 3), found, strict=True)])


def level(grams: Codes, counts: NDArray[np.int64]) -> Level:
    """Shares and backoff weights of one order from its counts."""
    contexts = grams >> np.uint64(8)
    starts = run_starts(contexts)
    discount = discounts(counts)[np.minimum(counts, 3)]
    totals = np.add.reduceat(counts, starts).astype(float)
    share = (counts - discount) / np.repeat(totals, np.diff(starts, append=len(grams)))
    return Level(grams, share, contexts[starts], np.add.reduceat(discount, starts) / totals)


def continuation(longer: Codes, order: int) -> Level:
    """One order counted as Kneser and Ney do: by how many different bytes came before each n-gram.

    `longer` holds the distinct n-grams of `order + 1` bytes.
    """
    return level(*counted(longer & np.uint64(256**order - 1)))


def extended(below: Floats, at: Level, text_codes: Codes) -> Floats:
    """P of each n-gram's last byte at one order, given P at the order below. (N,) -> (N,)."""
    grams, inverse = np.unique(text_codes, return_inverse=True)
    share = looked_up(at.grams, at.share, grams, 0.0)
    backoff = looked_up(at.contexts, at.backoff, grams >> np.uint64(8), 1.0)
    p: Floats = share[inverse] + backoff[inverse] * below
    return p


def looked_up(keys: Codes, values: Floats, wanted: Codes, absent: float) -> Floats:
    """values[key] for each wanted key, `absent` where there is none."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], absent)


@dataclass(frozen=True)
class ByteNgram:
    """Interpolated modified Kneser-Ney over bytes: continuation counts below the top order, plain counts at it."""

    levels: tuple[Level, ...]
    """Orders 1 .. n. Below order 1 stands the uniform 1/256."""

    @classmethod
    def fit(cls, text: Bytes, order: int) -> ByteNgram:
        """Count `text` (at least one byte)."""
        grams, counts = counted(codes(text, order))
        levels = [level(grams, counts)]
        for below in range(order - 1, 0, -1):
            levels.append(continuation(grams, below))
            grams = levels[-1].grams
        return cls(tuple(reversed(levels)))

    def probabilities(self, text: Bytes) -> Floats:
        """P of each byte given the bytes before it in `text`. (N,) -> (N,)."""
        return np.concatenate([self._chunk(text, start) for start in range(0, len(text), CHUNK)] or [np.empty(0)])

    def bits(self, text: Bytes) -> Floats:
        """-log2 of the probabilities. (N,) -> (N,)."""
        bits: Floats = -np.log2(self.probabilities(text))
        return bits

    def _chunk(self, text: Bytes, start: int) -> Floats:
        n_before = min(start, len(self.levels) - 1)
        piece = text[start - n_before : start + CHUNK]
        p = np.full(len(piece), 1 / 256)
        for order, at in enumerate(self.levels, start=1):
            p = extended(p, at, codes(piece, order))
        return p[n_before:]


def best_order(train: Bytes, heldout: Bytes, max_order: int = MAX_ORDER) -> int:
    """The order whose n-gram model, fitted on `train`, codes `heldout` (another part of it) in the fewest bits.

    The continuation orders are shared by all candidates, so that each costs one more sort.
    """
    below = np.full(len(heldout), 1 / 256)
    n_bits, (grams, counts) = [], counted(codes(train, 1))
    for order in range(1, max_order + 1):
        ends = codes(heldout, order)
        n_bits.append(-np.log2(extended(below, level(grams, counts), ends)).sum())
        if order < max_order:
            grams, counts = counted(codes(train, order + 1))
            below = extended(below, continuation(grams, order), ends)
    return int(np.argmin(n_bits)) + 1


def fitted_ngram(train: Bytes, max_order: int = MAX_ORDER) -> ByteNgram:
    """The n-gram model of the best order: chosen on the last twentieth of `train`, then fitted on all of it."""
    n_heldout = min(len(train) // 20, CHUNK // 2)
    if n_heldout == 0:
        return ByteNgram.fit(train, min(2, max_order))
    order = best_order(train[:-n_heldout], train[-n_heldout:], max_order)
    return ByteNgram.fit(train, order)
