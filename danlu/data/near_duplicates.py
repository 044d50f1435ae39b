"""Near-duplicates by MinHash and banding, vectorised over whole batches of texts.

A text is the set of its overlapping byte strings ("shingles"; lower-cased, without white space). Its signature has
K numbers; the share of equal numbers in two signatures estimates their Jaccard similarity (Broder 1997). All K come
from one hash of each shingle, as the minimum in each of K bins (one permutation hashing, Li et al. 2012), and an
empty bin borrows from a bin picked by a fixed hash (optimal densification, Shrivastava 2017). Bands of r numbers find
candidate pairs (Leskovec, Rajaraman, Ullman 2014, section 3.4); only pairs verified on all K numbers are linked.

Memory: signatures stay on disk (2 K bytes a text); clustering holds at most 40 bytes a text.
K numbers of a signature, N texts, P positions (bytes) of a block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MIX_A, MIX_B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
HALF, TOP = np.uint64(32), np.uint64(48)
EMPTY = np.uint64(2**64 - 1)
BLOCK_BYTES = 1 << 19
"""Text hashed at once: the temporary arrays take about 40 times this."""
PER_BIN = 24
"""Shingles wanted per bin; beyond it only the smallest hashes are looked at, which changes no minimum."""
_LOWER = bytes(range(256)).lower()
KEY_BYTES = 16 << 20
"""Memory for the band keys that are sorted in one pass over the signatures."""


def compared(text: bytes) -> bytes:
    """What is compared: the text with ASCII letters lower-cased and ASCII white space left out."""
    return text.translate(_LOWER, b" \t\n\r\x0b\x0c")


def signatures(texts: list[bytes], shingle_bytes: int, n_hashes: int) -> np.ndarray:
    """(N, K) uint16: one signature for each UTF-8 text. A text shorter than a shingle counts as one shingle."""
    padded = [compared(text).ljust(shingle_bytes, b"\0") for text in texts]
    n_shingles = np.array([len(text) - shingle_bytes + 1 for text in padded], dtype=np.float64)
    limits = np.where(n_shingles > PER_BIN * n_hashes, 2.0**64 * PER_BIN * n_hashes / n_shingles, 0)
    minima = _bin_minima(padded, limits.astype(np.uint64) - np.uint64(1), shingle_bytes, n_hashes)
    short = np.flatnonzero((limits > 0) & (minima == EMPTY).any(axis=1))
    if len(short):  # many repeats: too few different small hashes
        all_of_it = np.full(len(short), EMPTY)
        minima[short] = _bin_minima([padded[i] for i in short], all_of_it, shingle_bytes, n_hashes)
    return ((_densified(minima) * MIX_B) >> TOP).astype(np.uint16)


def _bin_minima(texts: list[bytes], limits: np.ndarray, shingle_bytes: int, n_hashes: int) -> np.ndarray:
    """(N, K) uint64: smallest hash below the text's limit in each bin; EMPTY where there is none."""
    minima = np.full(len(texts) * n_hashes, EMPTY)
    for numbers, pieces in _blocks(texts, shingle_bytes):
        hashes = _shingle_hashes(b"".join(pieces), shingle_bytes)
        sizes = np.array([len(piece) for piece in pieces])
        spans = np.column_stack([sizes - shingle_bytes + 1, np.full(len(pieces), shingle_bytes - 1)]).ravel()
        bounds = np.column_stack([limits[numbers], np.zeros(len(pieces), dtype=np.uint64)]).ravel()
        bound_P = np.repeat(bounds, spans)[: len(hashes)]  # 0 where a shingle would cross into the next text
        at = np.flatnonzero(hashes < bound_P)
        owner = np.repeat(np.asarray(numbers), sizes)[at]
        found = hashes[at]
        bins = ((found & np.uint64(0xFFFFFFFF)) * np.uint64(n_hashes)) >> HALF
        np.minimum.at(minima, owner * n_hashes + bins.astype(np.int64), found)
    return minima.reshape(len(texts), n_hashes)


def _blocks(texts: list[bytes], shingle_bytes: int) -> Iterator[tuple[list[int], list[bytes]]]:
    """Texts (long ones in overlapping pieces) gathered into blocks: (text numbers, pieces)."""
    numbers: list[int] = []
    pieces: list[bytes] = []
    size = 0
    for number, text in enumerate(texts):
        for start in range(0, max(1, len(text) - shingle_bytes + 1), BLOCK_BYTES):
            piece = text[start : start + BLOCK_BYTES + shingle_bytes - 1]
            if size and size + len(piece) > BLOCK_BYTES:
                yield numbers, pieces
                numbers, pieces, size = [], [], 0
            numbers.append(number)
            pieces.append(piece)
            size += len(piece)
    if pieces:
        yield numbers, pieces


def _shingle_hashes(data: bytes, shingle_bytes: int) -> np.ndarray:
    """(P - shingle_bytes + 1,) uint64: a hash of the bytes data[i : i + shingle_bytes] for each i."""
    n = len(data) - shingle_bytes + 1

    def eight_from(start: int) -> np.ndarray:
        return np.ndarray((n,), dtype="<u8", buffer=data, offset=start, strides=(1,))

    hashes = eight_from(0) * MIX_A
    for start in [*range(8, shingle_bytes - 8, 8), shingle_bytes - 8]:
        hashes ^= hashes >> HALF
        hashes += eight_from(start)
        hashes *= MIX_B
    hashes ^= hashes >> HALF
    hashes *= MIX_A
    hashes ^= hashes >> HALF
    return hashes


def _densified(minima: np.ndarray) -> np.ndarray:
    """(N, K): every empty bin takes the value of the first non-empty bin in its own fixed pseudo-random order.

    After 16 attempts (texts with few shingles) it takes the next non-empty bin to the right, round the end.
    """
    filled = minima != EMPTY
    result = minima.copy()
    rows, columns = np.nonzero(~filled)
    n_hashes = minima.shape[1]
    for attempt in range(1, 17):
        mixed = (columns.astype(np.uint64) + np.uint64(attempt << 20)) * MIX_A
        mixed = (mixed ^ (mixed >> HALF)) * MIX_B
        donors = (((mixed >> HALF) * np.uint64(n_hashes)) >> HALF).astype(np.int64)
        ready = filled[rows, donors]
        result[rows[ready], columns[ready]] = minima[rows[ready], donors[ready]]
        rows, columns = rows[~ready], columns[~ready]
    if len(rows):
        sparse, which = np.unique(rows, return_inverse=True)
        here = np.where(filled[sparse], np.arange(n_hashes), 2 * n_hashes)
        ring = np.concatenate([here, here + n_hashes], axis=1)
        following = np.minimum.accumulate(ring[:, ::-1], axis=1)[:, ::-1] % n_hashes
        result[rows, columns] = minima[rows, following[which, columns]]
    return result


def banding(threshold: float, n_hashes: int, recall: float = 0.99) -> tuple[int, int]:
    """(bands, rows): the most rows per band that still find a pair at the threshold with this probability.

    A pair of similarity s becomes a candidate with probability 1 - (1 - s^rows)^bands.
    """
    for rows in range(n_hashes, 1, -1):
        if 1 - (1 - threshold**rows) ** (n_hashes // rows) >= recall:
            return n_hashes // rows, rows
    return n_hashes, 1


def band_keys(signature: np.ndarray, band: int, rows: int) -> np.ndarray:
    """(N,) uint64: equal for texts whose signatures are equal in this band."""
    keys = np.zeros(len(signature), dtype=np.uint64)
    for column in range(band * rows, (band + 1) * rows):
        keys = (keys ^ signature[:, column]) * MIX_A
        keys ^= keys >> HALF
    return keys


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) float: estimated Jaccard similarity of signatures (N, K), row by row."""
    shares: np.ndarray = (one == other).mean(axis=1)
    return shares


class SignatureFile:
    """Signatures on disk, written in order, read in blocks or by row (never mapped, so they do not count as memory)."""

    def __init__(self, path: Path, n_hashes: int) -> None:
        self.path, self.n_hashes, self.n_rows = path, n_hashes, 0
        self._file = path.open("w+b")

    def append(self, signature: np.ndarray) -> None:
        """Add (N, K) uint16 rows."""
        self._file.write(signature.astype("<u2").tobytes())
        self.n_rows += len(signature)

    def blocks(self, n_rows: int = 1 << 14) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first row, (n, K) uint16) from the first to the last."""
        for start in range(0, self.n_rows, n_rows):
            yield start, self.rows(range(start, min(start + n_rows, self.n_rows)))

    def rows(self, numbers: range | np.ndarray) -> np.ndarray:
        """(n, K) uint16: a range of rows, or rows by number."""
        self._file.flush()
        size, fd = 2 * self.n_hashes, self._file.fileno()
        if isinstance(numbers, range):
            data = os.pread(fd, len(numbers) * size, numbers.start * size)
        else:
            data = b"".join(os.pread(fd, size, int(i) * size) for i in numbers)
        return np.frombuffer(data, dtype="<u2").reshape(-1, self.n_hashes)

    def close(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)  # first: on a full disk, closing fails
        self._file.close()


def clusters(signed: SignatureFile, threshold: float, keep: np.ndarray | None = None) -> np.ndarray:
    """(N,) int64: for each text the number of the first text of its cluster (its own when it is alone).

    `keep` (N,) bool: texts to look at; the others stay alone.
    """
    n_texts = signed.n_rows
    parent = np.arange(n_texts)
    n_bands, rows = banding(threshold, signed.n_hashes)
    at_once = max(1, min(n_bands, KEY_BYTES // (8 * max(1, n_texts))))
    for first in range(0, n_bands, at_once):
        bands = range(first, min(first + at_once, n_bands))
        keys = np.empty((len(bands), n_texts), dtype=np.uint64)
        for start, block in signed.blocks():
            for i, band in enumerate(bands):
                keys[i, start : start + len(block)] = band_keys(block, band, rows)
        for row in keys:
            _link(parent, _candidates(row, keep), signed, threshold)
    return _roots(parent, np.arange(n_texts))


def pairs_between(
    signed: SignatureFile, some: np.ndarray, others: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Near-duplicates of the rows numbered `some` among `others` (N,) bool: pairs (n, 2) of numbers, similarities."""
    n_bands, rows = banding(threshold, signed.n_hashes)
    mine = signed.rows(some)
    keys = [band_keys(mine, band, rows) for band in range(n_bands)]
    orders = [np.argsort(key, kind="stable") for key in keys]
    found, shares = [np.empty((0, 2), dtype=np.int64)], [np.empty(0)]
    for start, block in signed.blocks():
        numbers = np.flatnonzero(others[start : start + len(block)])
        candidates = [np.empty((0, 2), dtype=np.int64)]
        for band in range(n_bands):
            theirs = band_keys(block[numbers], band, rows)
            in_order = keys[band][orders[band]]
            low, high = np.searchsorted(in_order, theirs, "left"), np.searchsorted(in_order, theirs, "right")
            n_each = high - low
            at = np.repeat(low - np.cumsum(n_each) + n_each, n_each) + np.arange(n_each.sum())
            candidates.append(np.column_stack([orders[band][at], np.repeat(numbers, n_each)]))
        pairs = np.unique(np.concatenate(candidates), axis=0)
        for at_once in np.array_split(pairs, 1 + len(pairs) // (1 << 14)):
            share = similarity(mine[at_once[:, 0]], block[at_once[:, 1]])
            same = share >= threshold
            found.append(np.column_stack([some[at_once[same, 0]], at_once[same, 1] + start]))
            shares.append(share[same])
    return np.concatenate(found), np.concatenate(shares)


def _candidates(keys: np.ndarray, keep: np.ndarray | None) -> np.ndarray:
    """(n, 2) int64: texts with equal keys, each with the first of its group and with its neighbour."""
    numbers = np.arange(len(keys)) if keep is None else np.flatnonzero(keep)
    order = numbers[np.argsort(keys[numbers], kind="stable")]
    same = keys[order[1:]] == keys[order[:-1]]
    at = np.flatnonzero(same) + 1
    starts = np.arange(len(order))
    starts[at] = 0
    first = np.maximum.accumulate(starts)[at]
    pairs = np.concatenate(
        [np.column_stack([order[first], order[at]]), np.column_stack([order[at - 1], order[at]])[first != at - 1]]
    )
    return pairs


def _link(parent: np.ndarray, pairs: np.ndarray, signed: SignatureFile, threshold: float) -> None:
    """Join the clusters of every pair that is similar enough on the whole signature."""
    for start in range(0, len(pairs), 1 << 12):
        batch = pairs[start : start + (1 << 12)]
        batch = batch[_roots(parent, batch[:, 0]) != _roots(parent, batch[:, 1])]
        if not len(batch):
            continue
        numbers, where = np.unique(batch, return_inverse=True)
        rows = signed.rows(numbers)[where.reshape(batch.shape)]
        verified = batch[similarity(rows[:, 0], rows[:, 1]) >= threshold]
        for one, other in verified.tolist():
            a, b = _root(parent, one), _root(parent, other)
            parent[max(a, b)] = min(a, b)


def _root(parent: np.ndarray, number: int) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = int(parent[number])
    return number


def _roots(parent: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    found: np.ndarray = parent[numbers]
    above: np.ndarray = parent[found]
    while not np.array_equal(above, found):
        found, above = above, parent[above]
    return above
