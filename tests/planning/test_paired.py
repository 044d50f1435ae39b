"""The sequential paired test: against plain versions, and its error rate and power by simulation."""

import math

import numpy as np
import pytest

from danlu.planning import paired


def plain_evidence(d):
    """Log of the ratio of two marginal likelihoods, integrated on a grid: delta ~ N(0, SPREAD) against delta = 0, both with
    the right Haar prior d sigma / sigma."""
    log_s = np.linspace(-6, 6, 1201)
    sigma = np.exp(log_s)[:, None]
    delta = np.linspace(-14, 14, 1401)[None]
    n, total, squares = len(d), d.sum(), (d**2).sum()

    def log_likelihood(delta):
        return -n * log_s[:, None] - (squares - 2 * total * sigma * delta + n * (sigma * delta) ** 2) / (2 * sigma**2)

    prior = np.exp(-(delta**2) / 2 / paired.SPREAD) / math.sqrt(2 * math.pi * paired.SPREAD)
    with_effect = (np.exp(log_likelihood(delta)) * prior).sum() * (delta[0, 1] - delta[0, 0])
    return math.log(with_effect / np.exp(log_likelihood(np.zeros((1, 1)))).sum())


@pytest.mark.parametrize("n", [3, 5, 9])
def test_the_evidence_is_the_bayes_factor(n):
    d = np.random.default_rng(n).standard_normal(n) + 0.8
    t2 = n * d.mean() ** 2 / d.var(ddof=1)
    assert paired.log_evidence(n, t2) == pytest.approx(plain_evidence(d), abs=2e-3)


def plain_highest(d):
    """One path, look by look."""
    looks = range(paired.FIRST, len(d) + 1)
    return max(float(paired.log_evidence(n, n * d[:n].mean() ** 2 / d[:n].var(ddof=1))) for n in looks)


def test_paths_are_followed_look_by_look():
    d = np.random.default_rng(3).standard_normal((20, 10)) + 0.5
    assert paired.highest(d) == pytest.approx([plain_highest(row) for row in d])
    row = d[0]
    later = paired.highest(row[None, 6:], 6, row[:6].mean(), 6 * row[:6].var())
    assert max(later[0], plain_highest(row[:6])) == pytest.approx(plain_highest(row))


@pytest.mark.parametrize("kind", ["normal", "laplace", "t3"])
def test_looking_after_every_pair_gives_few_false_winners(kind):
    """At the longest comparison there is; exactly 5% for normal differences, fewer for others that are symmetric."""
    rng, shape = np.random.default_rng(11), (20_000, paired.HORIZON)
    d = {"normal": rng.normal, "laplace": rng.laplace}[kind](size=shape) if kind != "t3" else rng.standard_t(3, shape)
    rate = np.mean(paired.highest(d) >= paired.threshold(0.05))
    assert rate <= 0.055
    if kind == "normal":
        assert rate == pytest.approx(0.05, abs=0.005)


def test_looking_after_every_pair_with_the_fixed_t_test_would_not():
    d = np.random.default_rng(12).standard_normal((4000, 16))
    critical = {4: 3.182, 8: 2.365, 12: 2.201, 16: 2.131}  # two-sided 5% of Student's t
    t = {n: abs(d[:, :n].mean(1)) * math.sqrt(n) / d[:, :n].std(1, ddof=1) for n in critical}
    assert np.mean(np.any([t[n] > critical[n] for n in critical], axis=0)) > 0.09


def test_p_values_are_the_levels_of_the_thresholds():
    for level in (0.05, 0.025, 0.01):
        assert paired.p_value(paired.threshold(level)) == pytest.approx(level, rel=0.01)


def test_the_interval_ends_where_the_test_does():
    for n in (3, 4, 8, 20):
        half = paired.half_width(n, 1.7)
        assert float(paired.log_evidence(n, n * (half / 1.7) ** 2)) == pytest.approx(paired.threshold())
    assert math.isinf(paired.half_width(2, 1.0))


def test_intervals_hold_at_all_looks_together():
    d = np.random.default_rng(5).standard_normal((4000, 16)) + 3.0
    missed = np.zeros(len(d), bool)
    for n in range(paired.FIRST, 17):
        half = paired.half_width(n, 1.0) * d[:, :n].std(1, ddof=1)
        missed |= abs(d[:, :n].mean(1) - 3.0) > half
    assert missed.mean() <= 0.055


@pytest.mark.parametrize("n", [5, 8, 16])
def test_power_is_as_stated(n):
    effect = paired.smallest_effect(n)
    d = np.random.default_rng(n).standard_normal((4000, n)) * 0.3 + effect * 0.3
    assert np.mean(paired.highest(d) >= paired.threshold()) == pytest.approx(paired.POWER, abs=0.025)


def test_pairs_needed_is_the_textbook_formula():
    assert paired.pairs_needed(0.4, 0.1) == math.ceil(((1.959964 + 0.841621) * 4) ** 2)
    assert paired.pairs_needed(0.04, 0.1) == 2


def test_a_hopeless_comparison_is_seen_and_a_hopeful_one_is_not():
    rng = np.random.default_rng(2)
    null = rng.standard_normal(6) * 0.5
    assert paired.still_to_come(list(null - null.mean()), 8) < 0.02
    assert paired.still_to_come([1.0, 1.3, 0.8, 0.2], 12) > 0.6
    assert paired.still_to_come([1.0, 1.3, 0.8, 0.2], 4) == 0.0


def test_the_validation_splits_own_noise_is_told_from_that_of_the_seeds():
    rng = np.random.default_rng(4)
    found = []
    for _ in range(300):
        of_seed, of_block = rng.normal(0, 0.5, (6, 1)), rng.normal(0, 0.8, (1, 32))
        found.append(paired.evaluation_se(of_seed + of_block + rng.normal(0, 0.3, (6, 32))) ** 2)
    assert np.mean(found) == pytest.approx(0.8**2 / 32, rel=0.1)
    nothing = [paired.evaluation_se(rng.normal(0, 1, (6, 32))) ** 2 for _ in range(300)]
    assert np.mean(nothing) < 0.1 / 32
    assert paired.evaluation_se(np.zeros((5, 0))) == 0.0


def plain_holm(p_values, level):
    """Names that are rejected."""
    rejected = []
    for i, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p > level / (len(p_values) - i):
            break
        rejected.append(name)
    return rejected


@pytest.mark.parametrize("seed", range(8))
def test_holm(seed):
    rng = np.random.default_rng(seed)
    p_values = {str(i): float(rng.choice([0.001, 0.012, 0.02, 0.03, 0.5])) * rng.uniform(0.9, 1) for i in range(4)}
    levels = paired.holm(p_values, 0.05)
    assert sorted(k for k in p_values if p_values[k] <= levels[k]) == sorted(plain_holm(p_values, 0.05))
