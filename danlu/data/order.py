"""Which samples an update sees: a pure function of (seed, step), whatever the workers, ranks or history.

Positions 0, 1, 2, ... run through an endless sequence of epochs. Each epoch is a keyed pseudo-random
permutation of the samples, computed and never stored: a Feistel network over Z_a x Z_b with a*b barely above n
(Black & Rogaway 2002, "Ciphers with arbitrary finite domains"), whose few strays walk the cycle back into
range. Its round function is the 64-bit finaliser of SplitMix (Steele, Lea & Flood 2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Words = NDArray[np.uint64]

N_ROUNDS = 24
"""Four are enough for large domains (Luby & Rackoff 1988); down to five samples, 24 leave no order rarer (tested)."""
N_AHEAD = 2048
"""Positions computed together, because numpy charges a call rather than an element."""
POOL = 32
"""Batches that are sorted by length together."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


@dataclass(frozen=True)
class Order:
    """The order in which `n_samples` are seen, `batch` at a time, for ever.

    A partial batch at the end of an epoch goes on into the next one: no sample is dropped, and in each epoch
    every sample is seen exactly once.
    """

    n_samples: int
    batch: int
    seed: int
    shuffle: bool = True

    def at(self, step: int, part: slice | None = None) -> tuple[Ids, Ids]:
        """(sample ids, epochs), each (batch,) int64, of update `step` (0-based); `part` takes a rank's slice."""
        n_steps = max(1, N_AHEAD // self.batch)
        ids, epochs = stretch(self, step // n_steps, n_steps)
        row = step % n_steps
        part = part or slice(None)
        return ids[row, part], epochs[row, part]


@lru_cache(maxsize=4)
def stretch(order: Order, number: int, n_steps: int) -> tuple[Ids, Ids]:
    """(sample ids, epochs), each (n_steps, batch), of the updates number * n_steps and on. Read-only."""
    first, n = number * n_steps * order.batch, n_steps * order.batch
    epochs, index = np.divmod(np.arange(first, first + n, dtype=np.int64), order.n_samples)
    ids = permuted(index, epochs, order.n_samples, order.seed) if order.shuffle else index
    for array in (ids, epochs):
        array.setflags(write=False)
    return ids.reshape(n_steps, order.batch), epochs.reshape(n_steps, order.batch)


@dataclass(frozen=True)
class Bucketed:
    """The same order with batches of samples of like length: less padding, and every sample still once an epoch.

    Each pool of POOL batches, or of an epoch's where that is fewer (a batch must not be one sample several times), is
    sorted by length, cut, and its batches put in an order drawn from (seed, pool). Still a pure function of (seed, step).
    """

    order: Order
    lengths: NDArray[np.int64] = field(compare=False)
    """(n_samples,) how long each sample is."""

    @property
    def batch(self) -> int:
        """Samples of an update."""
        return self.order.batch

    @property
    def n_pooled(self) -> int:
        """Batches that are sorted together."""
        return max(1, min(POOL, self.order.n_samples // self.order.batch))

    def at(self, step: int) -> tuple[Ids, Ids]:
        """(sample ids, epochs), each (batch,) int64, of update `step` (0-based)."""
        n = self.n_pooled
        pool, place = divmod(step, n)
        found = [self.order.at(pool * n + i) for i in range(n)]
        ids, epochs = np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])
        by_length = np.argsort(self.lengths[ids], kind="stable").reshape(n, self.batch)
        turn = np.argsort(hashed(self.order.seed, np.arange(n, dtype=np.int64) + pool * n), kind="stable")
        rows = by_length[turn[place]]
        return ids[rows], epochs[rows]


@dataclass(frozen=True)
class Joined:
    """Updates of k batches of another order each: the same samples in the same turn, whatever the other order sorts by."""

    order: Order | Bucketed | Joined
    k: int

    @property
    def batch(self) -> int:
        """Samples of an update."""
        return self.k * self.order.batch

    def at(self, step: int) -> tuple[Ids, Ids]:
        """(sample ids, epochs), each (batch,) int64, of update `step` (0-based)."""
        found = [self.order.at(step * self.k + i) for i in range(self.k)]
        return np.concatenate([ids for ids, _ in found]), np.concatenate([epochs for _, epochs in found])


def share(batch: int, rank: int, n_ranks: int) -> slice:
    """The fixed slice of every batch that belongs to `rank` of `n_ranks`; sizes differ by one at most."""
    return slice(rank * batch // n_ranks, (rank + 1) * batch // n_ranks)


def permuted(index: Ids, epochs: Ids, n: int, seed: int) -> Ids:
    """Where the permutation of each element's epoch sends `index` (both (k,), 0 <= index < n). O(k) time and memory."""
    a = math.isqrt(n - 1) + 1
    a += a % 2  # with two odd sides every round is an even permutation, and half of all orders cannot come up
    sizes = np.uint64(a), np.uint64(-(-n // a))
    keys = round_keys(epochs, seed)
    out = feistel(index.astype(np.uint64), keys, sizes)
    while (strays := np.flatnonzero(out >= n)).size:
        out[strays] = feistel(out[strays], keys[:, strays], sizes)
    return out.astype(np.int64)


def feistel(x: Words, keys: Words, sizes: tuple[np.uint64, np.uint64]) -> Words:
    """A bijection of [0, a*b): split x into (x // b, x % b) and shift each half by a hash of the other, in turns."""
    a, b = sizes
    left, right = np.divmod(x, b)
    for i in range(0, N_ROUNDS, 2):
        left = (left + mixed(right ^ keys[i]) % a) % a
        right = (right + mixed(left ^ keys[i + 1]) % b) % b
    return left * b + right


def round_keys(epochs: Ids, seed: int) -> Words:
    """(rounds, k) keys, one column for the epoch of each element."""
    start = mixed(np.array([seed % 2**64], dtype=np.uint64) + GOLDEN)
    column = mixed(start ^ mixed(epochs.astype(np.uint64) * GOLDEN + GOLDEN))
    return mixed(column + np.arange(1, N_ROUNDS + 1, dtype=np.uint64)[:, None] * GOLDEN)


def hashed(seed: int, epochs: Ids) -> Words:
    """(k,) uniform 64-bit words, one for each (seed, epoch): for choices made once an epoch."""
    return mixed(round_keys(epochs, seed)[-1] + GOLDEN)


def mixed(x: Words) -> Words:
    """SplitMix64's finaliser on an array: every input bit flips each output bit with probability near 1/2."""
    x = (x ^ (x >> SHIFTS[0])) * FACTORS[0]
    x = (x ^ (x >> SHIFTS[1])) * FACTORS[1]
    return x ^ (x >> SHIFTS[2])
