"""Random changes of training proteins: residues hidden, or exchanged as evolution exchanges them."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.settings import Settings
from danlu.data.sequences import Ints, Words, draws

BLOSUM_ORDER = "ARNDCQEGHILKMFPSTWYV"
BLOSUM62 = """
4
-1 5
-2 0 6
-2 -2 1 6
0 -3 -3 -3 9
-1 1 0 0 -3 5
-1 0 0 2 -4 2 5
0 -2 0 -1 -3 -2 -2 6
-2 0 1 -1 -3 0 0 -2 8
-1 -3 -3 -3 -1 -3 -3 -4 -3 4
-1 -2 -3 -4 -1 -2 -3 -4 -3 2 4
-1 2 0 -1 -3 1 1 -2 -1 -3 -2 5
-1 -1 -2 -3 -1 0 -2 -3 -2 1 2 -1 5
-2 -3 -3 -3 -2 -3 -3 -3 -1 0 0 -3 0 6
-1 -2 -2 -1 -3 -1 -1 -2 -2 -3 -3 -1 -2 -4 7
1 -1 1 0 -1 0 0 0 -1 -2 -2 0 -1 -2 -1 4
0 -1 0 -1 -1 -1 -1 -2 -2 -1 -1 -1 -1 -2 -1 1 5
-3 -3 -4 -4 -2 -2 -3 -2 -2 -3 -2 -3 -1 1 -4 -3 -2 11
-2 -2 -2 -3 -2 -1 -2 -3 2 -1 -1 -2 -1 3 -3 -2 -2 2 7
0 -3 -3 -3 -1 -2 -2 -3 -3 3 1 -2 1 -1 -2 -2 0 -3 -1 4
"""
"""Half-bits of BLOSUM62, the lower half (Henikoff and Henikoff 1992)."""
FREQUENCIES = (
    0.074, 0.052, 0.045, 0.054, 0.025, 0.034, 0.054, 0.074, 0.026, 0.068,
    0.099, 0.058, 0.025, 0.047, 0.039, 0.057, 0.051, 0.013, 0.032, 0.073,
)  # fmt: skip
"""Of the residues in the blocks that it was counted on."""
Share = Annotated[float, Field(ge=0, lt=1)]


class ProteinAugment(Settings):
    """Random changes of training proteins; none by default. Labels stay."""

    hide: Share = 0.0
    """Share of the residues that are shown as unknown."""
    exchange: Share = 0.0
    """Share of the residues that are exchanged for another, each as likely as BLOSUM62 says of related proteins."""
    crop: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """In training a random window of at most so many residues is shown; 0: whole proteins. Scores are on whole ones."""


def exchange_chances(letters: str) -> NDArray[np.float64]:
    """(20, 20) rows: the chance of every other residue in place of one, in the order of `letters`."""
    table = np.zeros((20, 20))
    for i, line in enumerate(BLOSUM62.split("\n")[1:-1]):
        table[i, : i + 1] = table[: i + 1, i] = [int(v) for v in line.split()]
    chances = np.array(FREQUENCIES) * 2 ** (table / 2)  # s = 2 log2(q_ab / (p_a p_b)), so q_ab / p_a = p_b 2^(s/2)
    np.fill_diagonal(chances, 0.0)
    order = [BLOSUM_ORDER.index(letter) for letter in letters]
    chances = chances[np.ix_(order, order)]
    return np.asarray(chances / chances.sum(1, keepdims=True))


@lru_cache(maxsize=1)
def cumulative(letters: str) -> NDArray[np.float64]:
    """(20, 20) the same, summed up along each row."""
    return np.cumsum(exchange_chances(letters), 1)


def changed(
    tokens: Ints, inside: NDArray[np.bool_], seeds: Words, how: ProteinAugment, letters: str, first: int, unknown: int
) -> Ints:
    """tokens (B, T) with some residues exchanged and some hidden; residue letters[i] is token first + i."""
    n = tokens.shape[1]
    if how.exchange:
        known = inside & (tokens >= first) & (tokens < first + len(letters))
        rows, at = np.nonzero(known & (draws(seeds, n, 1) < how.exchange))
        drawn = draws(seeds, n, 2)[rows, at]
        others = (drawn[:, None] >= cumulative(letters)[tokens[rows, at] - first]).sum(1)
        tokens = tokens.copy()
        tokens[rows, at] = first + np.minimum(others, len(letters) - 1)
    if how.hide:
        tokens = np.where(inside & (draws(seeds, n, 3) < how.hide), unknown, tokens)
    return tokens
