"""A sequential paired test: is one arm better than another, looked at after every pair of runs, at one error rate.

d_i = improvement of pair i (two runs with the same seed). The evidence after n pairs is the Bayes factor of the
scale-invariant t mixture (Robbins 1970; Gonen et al. 2005; Johari et al. 2022): effects delta = mean/sd ~ N(0, SPREAD)
against none. Under normal d_i with no effect its whole path is free of the unknown sd, so the distribution of its highest
value over FIRST..HORIZON pairs is simulated once and gives the threshold: one may look after every pair, stop whenever,
and come back with more budget, and a null pair is called a winner in at most `level` of all cases.

Two arms that are the same in distribution give differences symmetric about 0, for which t is no wider than the normal's.

The unit of replication is the seed: the 32 blocks of one look share one training, so they say how uncertain the
validation split is, never how another training would have come out. Both count in an interval (`evaluation_se`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL, POWER = 0.05, 0.8
"""Rate of false winners over a whole comparison; chance of finding that a "smallest effect" is stated at."""
FIRST, HORIZON = 3, 32
"""Pairs before the first decision, and the most that one comparison may have."""
SPREAD = 4.0
"""Prior variance of mean/sd: short runs resolve effects of one to four sd."""
N_NULL, N_PATHS, N_FUTURES = 100_000, 8_000, 2_000
"""Simulated comparisons behind the threshold, behind each statement of power, and behind each look ahead."""

Floats = NDArray[np.float64]


def log_evidence(n: int, t2: Floats | float) -> Floats:
    """Log Bayes factor of n differences with squared t statistic t2 = n mean^2 / sd^2 (Gonen et al. 2005, eq. 3):
    (1 + n g)^(-1/2) [(1 + x) / (1 + x / (1 + n g))]^(n/2), with x = t2 / (n - 1)."""
    r, x = 1 + n * SPREAD, np.asarray(t2, float) / (n - 1)
    return np.asarray(-0.5 * math.log(r) + n / 2 * (np.log1p(x) - np.log1p(x / r)), dtype=np.float64)


def highest(
    differences: Floats, n_before: int = 0, mean: Floats | float = 0.0, squares: Floats | float = 0.0
) -> Floats:
    """(paths,) highest log evidence along each row of (paths, pairs); -inf before FIRST pairs. Paths may go on from
    n_before pairs with that mean and sum of squared deviations (Welford 1962)."""
    n, best = n_before, np.full(len(differences), -np.inf)
    for d in differences.T:
        n += 1
        step = d - mean
        mean = mean + step / n
        squares = squares + step * (d - mean)
        if n >= FIRST:
            t2 = n * (n - 1) * np.square(mean) / np.maximum(squares, 1e-300)
            np.maximum(best, log_evidence(n, t2), out=best)
    return best


@cache
def null_highest() -> Floats:
    """(N_NULL,) sorted: the highest log evidence of comparisons with no effect, over HORIZON pairs."""
    return np.sort(highest(np.random.default_rng(0).standard_normal((N_NULL, HORIZON))))


@cache
def threshold(level: float = LEVEL) -> float:
    """Log evidence that null comparisons ever reach with probability `level`."""
    return float(np.quantile(null_highest(), 1 - level))


def p_value(evidence: float) -> float:
    """Chance that a comparison with no effect ever reaches that much log evidence."""
    above = N_NULL - int(np.searchsorted(null_highest(), evidence, side="left"))
    return (above + 1) / (N_NULL + 1)


def half_width(n: int, sd: float, level: float = LEVEL) -> float:
    """Half of the interval of the mean difference that holds at all looks together: the effects that n pairs with this
    sd have not spoken against, solved from log_evidence = threshold(level). Infinite while n is too small."""
    if n < FIRST:
        return math.inf
    r = 1 + n * SPREAD
    c = math.exp(2 / n * (threshold(level) + 0.5 * math.log(r)))
    return math.sqrt((c - 1) / (1 - c / r) * (n - 1) / n) * sd if c < r else math.inf


def chance(effect: float, n: int, level: float = LEVEL) -> float:
    """Power: how often an effect of so many sd is found within n pairs."""
    return float(np.mean(highest(standard_paths()[:, :n] + effect) >= threshold(level)))


@cache
def standard_paths() -> Floats:
    """(N_PATHS, HORIZON) standard normals, the same for every statement."""
    return np.random.default_rng(1).standard_normal((N_PATHS, HORIZON))


@cache
def smallest_effect(n: int, level: float = LEVEL, power: float = POWER) -> float:
    """The effect, in sd of a difference, that n pairs find with probability `power`; infinite below FIRST pairs."""
    low, high = 0.0, 64.0
    if n < FIRST or chance(high, n, level) < power:
        return math.inf
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle, n, level) >= power else (middle, high)
    return high


def pairs_needed(sd: float, effect: float, level: float = LEVEL, power: float = POWER) -> int:
    """Pairs for one look at a known sd: n = ((z_a + z_b) sd / effect)^2. Looking after every pair costs some more."""
    z = NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(power)
    return max(2, math.ceil((z * sd / effect) ** 2))


def still_to_come(differences: Sequence[float], n_most: int, level: float = LEVEL) -> float:
    """Predictive power (Spiegelhalter et al. 1986): chance that a decision falls by n_most pairs, with mean and sd drawn
    from what they may be after the pairs so far (flat prior on mean and log sd)."""
    n, mean, sd = len(differences), float(np.mean(differences)), float(np.std(differences, ddof=1))
    if n_most <= n:
        return 0.0
    rng = np.random.default_rng(2)
    sds = sd * np.sqrt((n - 1) / rng.chisquare(n - 1, N_FUTURES))
    means = mean + sds * rng.standard_normal(N_FUTURES) / math.sqrt(n)
    future = means[:, None] + sds[:, None] * standard_paths()[:N_FUTURES, : n_most - n]
    return float(np.mean(highest(future, n, mean, (n - 1) * sd**2) >= threshold(level)))


def evaluation_se(differences: Floats) -> float:
    """Standard error of the mean difference that comes from the validation split being a sample, from (seeds, blocks):
    the block component of a two-way analysis of variance, sqrt(max(0, MS_block - MS_rest) / seeds / blocks)."""
    n, b = differences.shape
    if n < 2 or b < 2:
        return 0.0
    of_seed, of_block = differences.mean(1, keepdims=True), differences.mean(0, keepdims=True)
    rest = differences - of_seed - of_block + differences.mean()
    ms_rest = float(np.square(rest).sum()) / ((n - 1) * (b - 1))
    ms_block = n * float(np.var(of_block, ddof=1))
    return math.sqrt(max(0.0, ms_block - ms_rest) / n / b)


def holm(p_values: Mapping[str, float], level: float = LEVEL) -> dict[str, float]:
    """The level that each comparison is tested at (Holm 1979): level / m for the smallest p-value, level / (m - 1) for the
    next once that is rejected, and so on; those after the first that is not share its level."""
    ordered, levels, n_rejected = sorted(p_values, key=lambda name: p_values[name]), {}, 0
    for rank, name in enumerate(ordered):
        levels[name] = level / (len(ordered) - n_rejected)
        n_rejected += n_rejected == rank and p_values[name] <= levels[name]
    return levels
