"""The model size and number of tokens that reach the lowest loss within a budget, from a ladder of short, decayed runs.

    L(N, D) = E + A N^-a + B D^-b        N parameters without embeddings, D tokens, repeats discounted

It is fitted by variable projection: a search over (a, b), non-negative least squares of (E, A, B) inside, Huber's weights
against stray runs (Hoffmann et al. 2022, 2203.15556, approach 3; Besiroglu et al. 2024, 2404.10102 showed why its search must
be run to the end). Exponents are never reported: they swing while predictions stay; every (a, b) is kept with its posterior
weight, under a weak prior at the refitted exponents, and predictions are averages over them. Repeated tokens count as
D' = U + U R* (1 - exp(-R / R*)), R* = 15.4 (Muennighoff et al. 2023, 2305.16264, equation 5). Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from danlu.base.units import short_count
from danlu.planning.distributions import t_quantile
from danlu.planning.ledger import Decision
from danlu.planning.prediction import VALIDATION_LOSS, Z80, Prediction, predict, unknown

Values = NDArray[np.float64]
PRIOR_A, PRIOR_B, PRIOR_SD = 0.348, 0.366, 0.5
"""Exponents of Hoffmann's data as Besiroglu et al. 2024 refitted them, and a weak standard deviation of their logarithms."""
EXPONENTS = np.exp(np.linspace(math.log(0.05), math.log(1.5), 36))
"""What is searched for either."""
REPEATS_WORTH = 15.4
"""R*: how many repeats a token is worth at most."""
HUBER = 2.0
"""Standard deviations from which a run's error counts linearly."""
LEAST_NOISE = 0.002
"""The least relative error of a run: another seed alone changes as much (planning-science.md, section 0)."""
REACH = 10.0
"""Sizes and tokens so many times beyond the ladder are still predicted; further out nobody knows."""
LEAST_RUNS = 5


@dataclass(frozen=True)
class Rung:
    """One run of the ladder, decayed to its end."""

    n_parameters: float
    n_tokens: float
    loss: float
    n_unique: float = math.inf
    """Tokens there are; beyond them they repeat."""
    seconds: float = 0.0

    @property
    def worth(self) -> float:
        """Its tokens as fresh ones."""
        return worth(self.n_tokens, self.n_unique)


def worth(n_tokens: float, n_unique: float = math.inf) -> float:
    """D': what D tokens of which U are different are worth in fresh ones (2305.16264, equation 5; R = D / U - 1)."""
    if n_tokens <= n_unique:
        return n_tokens
    return n_unique + n_unique * REPEATS_WORTH * -math.expm1(-(n_tokens / n_unique - 1) / REPEATS_WORTH)


def non_negative(X: Values, y: Values) -> Values:
    """(pairs, k): the c >= 0 that minimise |X c - y| for each of X (pairs, runs, k) and y (pairs, runs), by trying every set
    of columns: exact, for few columns."""
    best, least = np.zeros((X.shape[0], X.shape[2])), (y**2).sum(axis=1)
    for size in range(1, X.shape[2] + 1):
        for columns in combinations(range(X.shape[2]), size):
            part = X[:, :, columns]
            found = (np.linalg.pinv(part) @ y[:, :, None])[:, :, 0]
            error = (((part @ found[:, :, None])[:, :, 0] - y) ** 2).sum(axis=1)
            better = (found >= 0).all(axis=1) & (error < least)
            least = np.where(better, error, least)
            whole = np.zeros_like(best)
            whole[:, list(columns)] = found
            best = np.where(better[:, None], whole, best)
    return best


@dataclass(frozen=True)
class Surface:
    """The fitted losses: every pair of exponents with its coefficients, what they leave over, and its weight."""

    ladder: tuple[Rung, ...]
    a: Values
    b: Values
    coefficients: Values
    """(pairs, 3): E, A, B, of N and D over the ladder's geometric means."""
    weights: Values
    """(pairs,): posterior, summing to 1."""
    noise: float
    """Relative standard deviation of one run about the surface, widened as Student's t for the runs there are."""

    @cached_property
    def center(self) -> tuple[float, float]:
        """Geometric means of N and D'."""
        return center_of(self.ladder)

    def columns(self, n: float, d: float) -> Values:
        """(pairs, 3): 1, (N / N0)^-a, (D / D0)^-b."""
        n0, d0 = self.center
        return np.stack([np.ones_like(self.a), (n / n0) ** -self.a, (d / d0) ** -self.b], axis=1)

    def losses(self, n: float, d: float) -> Values:
        """What every pair says."""
        return np.asarray((self.columns(n, d) * self.coefficients).sum(axis=1))

    def at(self, n: float, d: float) -> tuple[float, float]:
        """(predicted loss, standard deviation) at N and D': the spread over exponents, and the coefficients' own."""
        losses = self.losses(n, d)
        mean = float(self.weights @ losses)
        between = float(self.weights @ (losses - mean) ** 2)
        within = self.noise**2 * mean**2 * self.leverage(n, d)
        return mean, math.sqrt(between + within)

    def leverage(self, n: float, d: float) -> float:
        """x' (X'X)^-1 x at the likeliest exponents, pulled a little so that a short ladder has an answer."""
        best = int(np.argmax(self.weights))
        X = design(self.ladder, float(self.a[best]), float(self.b[best]))
        x = self.columns(n, d)[best]
        return float(x @ np.linalg.solve(X.T @ X + 1e-4 * np.eye(3), x))

    def knows(self, n: float, d: float, reach: float = REACH) -> bool:
        """Whether N and D' lie within `reach` of the ladder, and it is long enough."""
        sizes, tokens = [r.n_parameters for r in self.ladder], [r.worth for r in self.ladder]
        return (
            len(self.ladder) >= LEAST_RUNS
            and min(sizes) / reach <= n <= reach * max(sizes)
            and min(tokens) / reach <= d <= reach * max(tokens)
        )


def center_of(ladder: Sequence[Rung]) -> tuple[float, float]:
    """Geometric means of N and D'."""
    logs = np.array([[math.log(r.n_parameters), math.log(r.worth)] for r in ladder])
    n0, d0 = np.exp(logs.mean(axis=0))
    return float(n0), float(d0)


def design(ladder: Sequence[Rung], a: float, b: float) -> Values:
    """(runs, 3): the surface's columns at each run."""
    n0, d0 = center_of(ladder)
    return np.array([[1.0, (r.n_parameters / n0) ** -a, (r.worth / d0) ** -b] for r in ladder])


def fit(ladder: Sequence[Rung]) -> Surface:
    """Variable projection over a grid of (a, b), each with its posterior weight."""
    runs = tuple(r for r in ladder if math.isfinite(r.loss))
    y = np.array([r.loss for r in runs])
    pairs = [(a, b) for a in EXPONENTS for b in EXPONENTS]
    coefficients, errors = robust(np.stack([design(runs, a, b) for a, b in pairs]) / y[:, None])
    free = max(1, len(runs) - 5)
    noise = max(LEAST_NOISE, t_quantile(0.9, free) / Z80 * math.sqrt(float(errors.min()) / free))
    prior = np.array([(math.log(a / PRIOR_A) ** 2 + math.log(b / PRIOR_B) ** 2) / PRIOR_SD**2 for a, b in pairs])
    score = -0.5 * (errors / noise**2 + prior)
    weights = np.exp(score - score.max())
    a, b = np.array(pairs).T
    return Surface(runs, a, b, coefficients, weights / weights.sum(), noise)


def robust(X: Values) -> tuple[Values, Values]:
    """(coefficients (pairs, 3), sums of squares with Huber's loss (pairs,)) of fitting 1 by relative columns (pairs, runs, 3):
    least squares, then twice reweighted where a run lies far off."""
    ones = np.ones(X.shape[:2])
    c = non_negative(X, ones)
    for _ in range(2):
        error, scale = misses(X, c)
        root = np.sqrt(np.minimum(1.0, scale / np.maximum(error, 1e-12)))
        c = non_negative(X * root[:, :, None], root)
    error, scale = misses(X, c)
    return c, np.where(error <= scale, error**2, 2 * scale * error - scale**2).sum(axis=1)


def misses(X: Values, c: Values) -> tuple[Values, Values]:
    """(absolute relative errors (pairs, runs), from where they count linearly (pairs, 1)): HUBER robust deviations."""
    error = np.abs((X @ c[:, :, None])[:, :, 0] - 1)
    return error, HUBER * np.maximum(LEAST_NOISE, 1.4826 * np.median(error, axis=1, keepdims=True))


@dataclass(frozen=True)
class Budget:
    """What the run may take. A limit that is infinite is none."""

    seconds: float = math.inf
    n_tokens: float = math.inf
    bytes: float = math.inf
    n_unique: float = math.inf
    """Tokens there are."""


SecondsPerToken = Callable[[float], float]
BytesOf = Callable[[float], float]


def size_of(
    ladder: Sequence[Rung],
    budget: Budget,
    token_s: SecondsPerToken,
    bytes_of: BytesOf | None = None,
    reach: float = REACH,
) -> tuple[Decision | None, Prediction]:
    """(model.size, the loss to come) of lowest predicted loss within the budget. `token_s` gives measured seconds a training
    token at N, `bytes_of` the upper bound of memory. No decision, and "don't know", where the ladder is too short or the
    optimum lies further from it than `reach`, in size or in tokens."""
    surface = fit(ladder)
    ends = [r.n_parameters for r in surface.ladder]
    if len(ends) < LEAST_RUNS:
        return None, unknown(
            VALIDATION_LOSS, "nats per target", f"{len(ends)} runs that ended well are too few: {LEAST_RUNS} at least"
        )
    options, edges = [], set()
    for n in map(float, np.geomspace(min(ends) / reach / 1.1, 1.1 * reach * max(ends), 123)):
        d = affordable(n, budget, token_s)
        if d < 1 or (bytes_of is not None and bytes_of(n) > budget.bytes):
            continue
        if surface.knows(n, worth(d, budget.n_unique), reach):
            options.append((n, d))
        else:
            edges.add(len(options))  # what lies beyond this option is not known
    if not options:
        return None, unknown(
            VALIDATION_LOSS,
            "nats per target",
            f"the budget lies more than {reach:g} times outside the ladder, or nothing fits",
        )
    fresh = [worth(d, budget.n_unique) for _, d in options]
    expected = [surface.at(n, w) for (n, _), w in zip(options, fresh, strict=True)]
    best = int(np.argmin([mean for mean, _ in expected]))
    if (best == 0 and 0 in edges) or (best == len(options) - 1 and len(options) in edges):
        return None, unknown(
            VALIDATION_LOSS, "nats per target", "the best size lies at the end of what the ladder can tell"
        )
    (n, d), (mean, sd) = options[best], expected[best]
    low, high = optimum_range(surface, options, fresh)
    why = f"of {len(options)} sizes within the budget, {short_count(n)} parameters on {short_count(d)} tokens come out lowest"
    decision = Decision(
        "model.size", short_count(n), "measured", f"{why}: {mean:.4g}.", "a ladder of short runs; Hoffmann 2022, 2203.15556, section 3.3",
        f"within {reach:g} times the ladder", min(ends) <= n <= max(ends), low, high,
        evidence={"ladder": [[r.n_parameters, r.n_tokens, r.loss] for r in surface.ladder]},
    )  # fmt: skip
    sd = math.hypot(sd, surface.noise * mean)
    return decision, predict(
        VALIDATION_LOSS, mean, "nats per target", f"{why}; fitted to {len(ends)} runs", "size ladder", sd=sd
    )


def affordable(n: float, budget: Budget, token_s: SecondsPerToken) -> float:
    """Tokens that N parameters may see: the tighter of time and tokens."""
    return min(budget.n_tokens, budget.seconds / token_s(n))


def optimum_range(surface: Surface, options: list[tuple[float, float]], fresh: list[float]) -> tuple[float, float]:
    """Central 80% of the sizes that are best under each pair of exponents."""
    table = np.stack([surface.losses(n, w) for (n, _), w in zip(options, fresh, strict=True)])
    sizes = np.array([n for n, _ in options])[table.argmin(axis=0)]
    order = np.argsort(sizes)
    reached = np.cumsum(surface.weights[order])
    at = [min(int(np.searchsorted(reached, q)), len(order) - 1) for q in (0.1, 0.9)]
    return float(sizes[order[at[0]]]), float(sizes[order[at[1]]])
