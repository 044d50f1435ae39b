"""Where a run ends, from others that did."""

import math

import numpy as np
import pytest

from danlu.planning import ends
from danlu.planning.seen import Earlier, Setting


def run(lr, end, batch=32, rule="adamw", now=0.0):
    """One that ended."""
    return Earlier(f"{lr:g}", Setting(rule, lr, batch), now, end)


def test_the_formula_is_that_of_a_joint_normal_with_a_vague_mean():
    """Rasmussen & Williams 2.25 and 2.30 with b^2 1 1' in the covariance, b large, term by term."""
    rng = np.random.default_rng(0)
    x, leads, y, s, sd, b = rng.normal(size=6), rng.normal(size=6) * 0.1, rng.normal(size=5) * 0.1 - 2, 0.2, 0.05, 1e3
    likeness = np.exp(-0.5 * (x[:, None] - x) ** 2)
    joint = s**2 * likeness + np.outer(leads, leads) + b**2
    known = joint[:5, :5] + sd**2 * np.eye(5)
    across = joint[5, :5]
    mean = across @ np.linalg.solve(known, y)
    variance = joint[5, 5] - across @ np.linalg.solve(known, across) + sd**2
    fits = ends.fitted(y, likeness, leads, s, sd)
    assert fits[1:] == pytest.approx((mean, variance), rel=1e-4)
    other = joint[:5, :5] + 0.1**2 * np.eye(5)
    evidence = [-0.5 * (y @ np.linalg.solve(k, y) + np.linalg.slogdet(k)[1]) for k in (known, other)]
    wanted = evidence[0] - evidence[1]
    thought = [0.5 * math.log(z / ends.NOISE) ** 2 for z in (sd, 0.1)]
    found = fits[0] - ends.fitted(y, likeness, leads, s, 0.1)[0]
    assert found == pytest.approx(wanted - thought[0] + thought[1], rel=1e-3)


def test_a_smooth_curve_of_the_rate_is_followed():
    curve = lambda lr: 0.03 * math.log(lr / 4e-3) ** 2 - 1  # noqa: E731
    runs = [run(4e-3 * 2.0**k, curve(4e-3 * 2.0**k)) for k in (-3, -2, -1, 1, 2, 3)]
    mean, sd = ends.expected(Setting("adamw", 4e-3, 32), runs)
    assert mean == pytest.approx(-1, abs=0.01)
    assert sd < 0.03
    far, far_sd = ends.expected(Setting("adamw", 4.0, 32), runs)
    assert far_sd > 3 * sd
    assert far > mean


def test_chance_is_seen_in_runs_of_the_same_settings():
    at, rng = Setting("adamw", 1e-3, 8), np.random.default_rng(1)
    for noise in (0.003, 0.05):
        _, sd = ends.expected(at, [run(1e-3, noise * z, 8) for z in rng.normal(size=10)])
        assert noise / 2 < sd < 2 * noise


def test_a_lead_lasts_in_part_and_other_rules_say_less():
    runs = [run(1e-3, -1 + 0.1 * k, now=0.2 * k) for k in (-1, 0, 1)]
    behind, even = (ends.expected(Setting("adamw", 1e-3, 32), runs, now)[0] for now in (0.2, 0.0))
    assert 0.08 < behind - even < 0.11
    runs = [run(1e-3, -1 + 0.01 * k) for k in (-1, 0, 1)]
    unlike = ends.expected(Setting("muon", 1e-3, 32), runs)[1]
    assert unlike > 2 * ends.expected(Setting("adamw", 1e-3, 32), runs)[1]


def test_a_hopeless_run_says_nothing():
    runs = [run(1e-3 * 2.0**k, -1.0) for k in range(4)]
    at = Setting("adamw", 3e-3, 32)
    assert ends.expected(at, [*runs, run(1.0, 5.0)]) == ends.expected(at, runs)


def test_intervals_hold_what_they_say():
    """Of runs drawn from the very process."""
    rng, held = np.random.default_rng(2), []
    for _ in range(200):
        rates = np.exp(rng.uniform(math.log(1e-4), math.log(1e-1), 7))
        x = np.log(rates) / ends.WIDE
        joint = 0.1**2 * np.exp(-0.5 * (x[:, None] - x) ** 2) + 0.01**2 * np.eye(7)
        drawn = rng.multivariate_normal(np.full(7, -1.0), joint)
        runs = [run(float(lr), float(end)) for lr, end in zip(rates[1:], drawn[1:], strict=True)]
        mean, sd = ends.expected(Setting("adamw", float(rates[0]), 32), runs)
        held.append(abs(mean - drawn[0]) < 1.2816 * sd)
    assert 0.74 < np.mean(held) < 0.9
