"""Size by measurement: every formula against a plain version, and known surfaces with known optima."""

import math
import random

import numpy as np
import pytest

from danlu.planning.size import Budget, Rung, affordable, fit, non_negative, size_of, worth

E, A, B, ALPHA, BETA = 1.82, 482.0, 2085.0, 0.348, 0.366
SIZES = [1e6 * 2**i for i in range(5)]
TOKENS = [2e7, 8e7, 3.2e8]


def truth(n, d):
    return E + A * n**-ALPHA + B * d**-BETA


def ladder(noise=0.0, seed=0):
    rng = random.Random(seed)
    return [
        Rung(n, d, truth(n, d) * (1 + rng.gauss(0, noise)), seconds=6 * n * d / 1e12) for n in SIZES for d in TOKENS
    ]


def test_repeats_are_worth_what_muennighoff_says():
    assert worth(5e6, 1e7) == 5e6
    assert worth(4e7, 1e7) == pytest.approx(1e7 * (1 + 15.4 * (1 - math.exp(-3 / 15.4))))
    assert worth(1e12, 1e7) == pytest.approx(1e7 * 16.4, rel=1e-3)  # never more than U (1 + R*)


def test_non_negative_least_squares_meets_its_conditions():
    """Karush-Kuhn-Tucker: the gradient is 0 where c > 0 and not negative where c = 0."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        X, y = rng.normal(size=(8, 3)), rng.normal(size=8)
        c = non_negative(X[None], y[None])[0]
        gradient = X.T @ (X @ c - y)
        assert (c >= 0).all()
        assert np.allclose(gradient[c > 0], 0, atol=1e-9)
        assert (gradient[c == 0] >= -1e-9).all()


def test_an_exact_ladder_predicts_ten_times_beyond_itself():
    surface = fit(ladder())
    for n, d in ((1.6e7, 3.2e8), (1e8, 3e9), (1.6e8, 3.2e8)):
        mean, sd = surface.at(n, d)
        assert mean == pytest.approx(truth(n, d), rel=0.01)
        assert abs(mean - truth(n, d)) < 3 * sd


def test_intervals_hold_what_they_say():
    """On 20 noisy ladders the 80% interval at 4 times the largest size and tokens holds the truth in about 80%."""
    n, d = 4 * SIZES[-1], 4 * TOKENS[-1]
    found = [fit(ladder(0.004, seed)).at(n, d) for seed in range(20)]
    errors = [mean - truth(n, d) for mean, _ in found]
    inside = sum(abs(e) <= 1.2816 * sd for e, (_, sd) in zip(errors, found, strict=True))
    assert 12 <= inside  # noqa: SIM300
    assert abs(sum(errors) / 20) < 0.01 * truth(n, d)


def test_one_stray_run_changes_little():
    clean, broken = ladder(0.001), ladder(0.001)
    broken[7] = Rung(broken[7].n_parameters, broken[7].n_tokens, 1.2 * broken[7].loss)
    n, d = 4e7, 1e9
    assert fit(broken).at(n, d)[0] == pytest.approx(fit(clean).at(n, d)[0], rel=0.01)


def test_the_best_size_is_hoffmanns():
    """At 6 N D = C the optimum is N = G (C / 6)^(b / (a + b)), G = (a A / b B)^(1 / (a + b)) (2203.15556, equation 4)."""
    flops = 6 * 2e7 * 4e8
    decision, prediction = size_of(ladder(), Budget(seconds=flops / 1e12), lambda n: 6 * n / 1e12)
    G = (ALPHA * A / BETA / B) ** (1 / (ALPHA + BETA))
    best = G * (flops / 6) ** (BETA / (ALPHA + BETA))
    assert decision.low <= best <= decision.high
    chosen = float(decision.value[:-1]) * 1e6
    assert truth(chosen, flops / 6 / chosen) <= 1.002 * truth(best, flops / 6 / best)
    assert prediction.holds(truth(chosen, flops / 6 / chosen), 95)


def test_budgets_bind():
    token_s = lambda n: 6 * n / 1e12  # noqa: E731
    assert affordable(1e6, Budget(seconds=60), token_s) == pytest.approx(1e7)
    assert affordable(1e6, Budget(seconds=60, n_tokens=1e5), token_s) == 1e5
    many, few = (
        size_of(ladder(), Budget(seconds=1e5, bytes=b), token_s, lambda n: 18 * n)[0] for b in (math.inf, 18e7)
    )
    assert float(few.value[:-1]) * 1e6 <= 1e7 < float(many.value[:-1]) * 1e6


def test_far_outside_nobody_knows():
    decision, prediction = size_of(ladder(), Budget(seconds=1e12), lambda n: 6 * n / 1e12)
    assert decision is None
    assert prediction.value is None
    assert size_of(ladder()[:4], Budget(seconds=1e5), lambda n: 6 * n / 1e12)[0] is None
