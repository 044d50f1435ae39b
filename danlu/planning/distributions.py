"""Chi-square and Student's t: quantiles, and what a t test can find. All of it from one integral, without scipy.

With s = sqrt(chi2_v / v), whose density is 2 (v/2)^(v/2) / Gamma(v/2) s^(v-1) exp(-v s^2 / 2):
P(chi2_v <= x) = P(s <= sqrt(x / v)); P(T_v <= t) = E Phi(t s) (Student 1908); and a two-sided t test with critical value
c finds a shift of d standard errors with probability E[Phi(d - c s) + Phi(-d - c s)], the non-central t.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
N_NODES = 200
"""Of the Gauss-Legendre rule."""
REACH = 10.0
"""Standard deviations of s on either side that are integrated over."""
MANY = 1e6
"""Degrees of freedom from which s is taken to be 1."""
PHI = NormalDist().cdf


@lru_cache(maxsize=64)
def nodes(df: float, end: float = math.inf) -> tuple[Values, Values]:
    """(s, weights): a rule for integrals over the density of s below `end`."""
    if df >= MANY:
        return np.ones(1), np.array([float(end >= 1)])
    low = max(0.0, 1 - REACH / math.sqrt(2 * df))
    high = max(low, min(end, 1 + REACH / math.sqrt(2 * df)))
    x, weights = np.polynomial.legendre.leggauss(N_NODES)
    s = low + (high - low) * (x + 1) / 2
    log_density = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2) + (df - 1) * np.log(s) - df * s * s / 2
    return s, weights * (high - low) / 2 * np.exp(log_density)


def solve(rising: Callable[[float], float], wanted: float) -> float:
    """The x >= 0 at which a function that does not fall reaches `wanted`, by halving."""
    low, high = 0.0, 1.0
    while rising(high) < wanted and high < 1e9:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


def chi2_cdf(x: float, df: float) -> float:
    """P(chi2 <= x)."""
    return float(nodes(df, math.sqrt(max(0.0, x) / df))[1].sum())


@lru_cache(maxsize=256)
def chi2_quantile(p: float, df: float) -> float:
    """The x with P(chi2 <= x) = p."""
    return solve(lambda x: chi2_cdf(x, df), p)


def t_cdf(t: float, df: float) -> float:
    """P(T <= t)."""
    s, weights = nodes(df)
    return float(sum(w * PHI(t * x) for x, w in zip(s, weights, strict=True)))


@lru_cache(maxsize=256)
def t_quantile(p: float, df: float) -> float:
    """The t with P(T <= t) = p."""
    if p < 0.5:
        return -t_quantile(1 - p, df)
    return solve(lambda t: t_cdf(t, df), p)


def t_power(shift: float, df: float, alpha: float = 0.05) -> float:
    """How often a two-sided t test at level `alpha` finds a true shift of so many standard errors."""
    c, (s, weights) = t_quantile(1 - alpha / 2, df), nodes(df)
    found = (PHI(shift - c * x) + PHI(-shift - c * x) for x in s)
    return float(sum(w * p for w, p in zip(weights, found, strict=True)))


@lru_cache(maxsize=256)
def t_shift(df: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true shift, in standard errors, that a two-sided t test finds with probability `power`."""
    return solve(lambda shift: t_power(shift, df, alpha), power)
