"""How much of a difference is chance: noise of an evaluation, noise of a seed, and what a number of runs can tell apart.

All sizes are relative to the loss (0.01 is 1% of it), so that tasks can be compared. Torch-free, pure functions of Looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from danlu.planning.distributions import chi2_quantile, t_shift
from danlu.planning.trials import Look

Values = NDArray[np.float64]
N_RESAMPLES = 2000
"""Of a bootstrap: the sd they give is itself off by 1 / sqrt(2 N), 1.6%."""


@dataclass(frozen=True)
class Spread:
    """A relative standard deviation with its interval."""

    sd: float
    """Over the mean loss."""
    low: float
    """End of the interval."""
    high: float
    """The other end; infinite where one value was all there was."""
    n: int
    """Values that it was measured on."""


def evaluation_noise(look: Look) -> float:
    """Relative sd that the validation loss has because the split is finite, by resampling its blocks (Efron 1979).

    NaN with fewer than two blocks. A block is a run of neighbouring windows or samples, so what makes neighbours alike is
    in it. The bootstrap's sd is too small by sqrt((n - 1) / n) with n blocks; that is put right.
    """
    sums, counts = columns(look)
    if len(sums) < 2 or not look.loss:
        return math.nan
    weights = resamples(len(sums))
    return corrected(weights @ sums / (weights @ counts), len(sums)) / abs(look.loss)


def paired_noise(first: Look, second: Look) -> float:
    """Relative sd of the difference of two looks at the same blocks: both see the same resamples, so what makes a block
    hard for both cancels. NaN where the blocks are not the same."""
    (sums, counts), (others, other_counts) = columns(first), columns(second)
    mean = abs(first.loss + second.loss) / 2
    if len(sums) < 2 or not np.array_equal(counts, other_counts) or not mean:
        return math.nan
    weights = resamples(len(sums))
    return corrected(weights @ (sums - others) / (weights @ counts), len(sums)) / mean


def columns(look: Look) -> tuple[Values, Values]:
    """(loss sums, targets) of a look's blocks that have targets."""
    blocks = np.array([b for b in look.blocks if b[1] > 0], float).reshape(-1, 2)
    return blocks[:, 0], blocks[:, 1]


def resamples(n: int) -> Values:
    """(N_RESAMPLES, n): how often each of n blocks is drawn, always the same draws."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES).astype(float)


def corrected(values: Values, n: int) -> float:
    """The sd of a bootstrap over n blocks, without its bias."""
    return float(values.std() * math.sqrt(n / (n - 1)))


def seed_noise(losses: Sequence[float], level: float = 0.95) -> Spread:
    """Relative sd of the final loss over seeds, from runs that differ in nothing else, and its interval: (n - 1) sd^2 /
    sigma^2 is chi-square with n - 1 degrees of freedom for normal losses. Runs that diverged make it infinite."""
    found = np.asarray(losses, float)
    n = len(found)
    if n < 2:
        return Spread(math.nan, 0.0, math.inf, n)
    if not np.isfinite(found).all():
        return Spread(math.inf, 0.0, math.inf, n)
    sd = float(found.std(ddof=1) / abs(found.mean()))
    low, high = (sd * math.sqrt((n - 1) / chi2_quantile(p, n - 1)) for p in ((1 + level) / 2, (1 - level) / 2))
    return Spread(sd, low, high, n)


def pooled(spreads: Sequence[Spread], level: float = 0.95) -> Spread:
    """One sd of several measurements of the same noise, each with its own mean: their variances by degrees of freedom."""
    known = [s for s in spreads if s.n > 1]
    df = sum(s.n - 1 for s in known)
    if not df:
        return Spread(math.nan, 0.0, math.inf, 0)
    sd = math.sqrt(sum((s.n - 1) * s.sd**2 for s in known) / df)
    low, high = (sd * math.sqrt(df / chi2_quantile(p, df)) for p in ((1 + level) / 2, (1 - level) / 2))
    return Spread(sd, low, high, df + 1)


def resolves(
    sd: float, n: int, *, is_paired: bool = True, evaluation: float = 0.0, power: float = 0.8, alpha: float = 0.05
) -> float:
    """The smallest true relative difference that n runs an arm tell from none, with this power, at this level.

    `sd`: relative sd of a pair's difference when runs are paired by seed, else of one run. `evaluation`: relative sd of
    the paired difference of two looks, which more runs on the same split do not make smaller. The two-sided t test has
    n - 1 or 2 (n - 1) degrees of freedom; its power is the non-central t's (distributions.t_shift). Infinite for n = 1.
    """
    if n < 2:
        return math.inf
    df, variance = (n - 1, sd**2 / n) if is_paired else (2 * (n - 1), 2 * sd**2 / n)
    return t_shift(df, power, alpha) * math.sqrt(variance + evaluation**2)
