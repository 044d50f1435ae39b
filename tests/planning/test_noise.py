"""Noise: bootstraps against plain loops and closed forms, distributions against tables, power against simulation."""

import math

import numpy as np
import pytest

from danlu.planning import noise
from danlu.planning.distributions import chi2_cdf, chi2_quantile, t_cdf, t_power, t_quantile, t_shift
from danlu.planning.trials import Look


def look(per_target, counts):
    sums = np.asarray(per_target) * counts
    return Look(1, float(sums.sum() / np.sum(counts)), tuple(zip(sums.tolist(), list(counts), strict=True)))


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    counts = rng.integers(50, 200, 32)
    hard = 2 + 0.5 * rng.standard_normal(32)
    return look(hard, counts), look(hard + 0.01 + 0.02 * rng.standard_normal(32), counts)


@pytest.mark.parametrize(
    ("p", "df", "wanted"), [(0.025, 7, 1.689869), (0.975, 7, 16.01276), (0.05, 1, 0.00393214), (0.95, 100, 124.3421)]
)
def test_chi_square_quantiles_are_those_of_the_tables(p, df, wanted):
    assert chi2_quantile(p, df) == pytest.approx(wanted, rel=1e-5)
    assert chi2_cdf(wanted, df) == pytest.approx(p, rel=1e-4)


@pytest.mark.parametrize(
    ("p", "df", "wanted"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.302653), (0.975, 7, 2.364624), (0.995, 30, 2.749996), (0.975, 1e7, 1.959964)],
)
def test_t_quantiles_are_those_of_the_tables(p, df, wanted):
    assert t_quantile(p, df) == pytest.approx(wanted, rel=1e-5)
    assert t_quantile(1 - p, df) == pytest.approx(-wanted, rel=1e-5)
    assert t_cdf(0.0, df) == pytest.approx(0.5)


def test_power_is_what_a_simulated_t_test_finds():
    rng, n, shift = np.random.default_rng(0), 5, 3.0
    samples = rng.standard_normal((40_000, n)) + shift / math.sqrt(n)
    t = samples.mean(1) / (samples.std(1, ddof=1) / math.sqrt(n))
    found = float((abs(t) > t_quantile(0.975, n - 1)).mean())
    assert t_power(shift, n - 1) == pytest.approx(found, abs=0.01)
    assert t_power(0.0, n - 1) == pytest.approx(0.05, abs=1e-6)
    assert t_shift(1e7) == pytest.approx(1.959964 + 0.841621, rel=1e-4)
    assert t_power(t_shift(4, 0.9), 4) == pytest.approx(0.9)


def test_evaluation_noise_is_a_plain_bootstrap(pair):
    first, _ = pair
    rng, n, blocks = np.random.default_rng(1), len(first.blocks), np.array(first.blocks)
    losses = []
    for _ in range(3000):
        drawn = blocks[rng.integers(0, n, n)]
        losses.append(drawn[:, 0].sum() / drawn[:, 1].sum())
    assert noise.evaluation_noise(first) == pytest.approx(
        np.std(losses) * math.sqrt(n / (n - 1)) / first.loss, rel=0.05
    )


def test_a_paired_difference_loses_what_both_share(pair):
    first, second = pair
    counts = np.array([b[1] for b in first.blocks], float)
    each = (np.array([b[0] for b in first.blocks]) - np.array([b[0] for b in second.blocks])) / counts
    difference = first.loss - second.loss
    weights = counts / counts.sum()
    n = len(counts)
    delta_method = math.sqrt(n / (n - 1) * float((weights**2 * (each - difference) ** 2).sum()))
    found = noise.paired_noise(first, second)
    assert found == pytest.approx(delta_method / ((first.loss + second.loss) / 2), rel=0.06)
    assert found < noise.evaluation_noise(first) / 5
    assert noise.paired_noise(first, first) == 0
    assert math.isnan(noise.paired_noise(first, look([1.0, 2.0], [5, 5])))


def test_evaluation_noise_of_made_up_splits_covers_their_truth():
    rng = np.random.default_rng(5)
    counts, inside = np.full(32, 100), 0
    for _ in range(200):
        seen = look(2 + 0.3 * rng.standard_normal(32), counts)
        inside += abs(seen.loss - 2) < 1.96 * noise.evaluation_noise(seen) * seen.loss
    assert 0.90 < inside / 200 < 0.98


def test_seed_noise_has_the_chi_square_interval():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(400):
        spread = noise.seed_noise(3 * (1 + 0.01 * rng.standard_normal(4)))
        inside += spread.low < 0.01 < spread.high
    assert 0.92 < inside / 400 < 0.98
    exact = noise.seed_noise([1.0, 2.0, 3.0])
    assert (exact.sd, exact.n) == (0.5, 3)
    assert exact.low == pytest.approx(0.5 * math.sqrt(2 / 7.377759), rel=1e-5)
    assert exact.high == pytest.approx(0.5 * math.sqrt(2 / 0.05063562), rel=1e-5)
    assert math.isinf(noise.seed_noise([1.0, math.inf]).sd)
    assert math.isinf(noise.seed_noise([1.0]).high)


def test_pooling_weighs_by_degrees_of_freedom():
    spreads = [noise.Spread(0.01, 0, 1, 3), noise.Spread(0.02, 0, 1, 5), noise.Spread(math.nan, 0, 1, 1)]
    found = noise.pooled(spreads)
    assert found.sd == pytest.approx(math.sqrt((2 * 0.01**2 + 4 * 0.02**2) / 6))
    assert found.low < found.sd < found.high < 0.05


def test_what_n_runs_resolve_is_found_as_often_as_stated():
    rng, n, sd = np.random.default_rng(4), 4, 0.002
    shift = noise.resolves(sd, n)
    pairs = shift + sd * rng.standard_normal((20_000, n))
    t = pairs.mean(1) / (pairs.std(1, ddof=1) / math.sqrt(n))
    assert float((abs(t) > t_quantile(0.975, n - 1)).mean()) == pytest.approx(0.8, abs=0.012)
    two = noise.resolves(sd, n, is_paired=False)
    arms = sd * rng.standard_normal((2, 20_000, n))
    t = (arms[0].mean(1) + two - arms[1].mean(1)) / np.sqrt((arms[0].var(1, ddof=1) + arms[1].var(1, ddof=1)) / n)
    assert float((abs(t) > t_quantile(0.975, 2 * n - 2)).mean()) == pytest.approx(0.8, abs=0.012)


def test_more_runs_resolve_more_down_to_what_the_split_allows():
    resolved = [noise.resolves(0.004, n) for n in (2, 3, 5, 10, 100)]
    assert resolved == sorted(resolved, reverse=True)
    assert noise.resolves(0.004, 10_000, evaluation=0.001) > 0.0028
    assert math.isinf(noise.resolves(0.004, 1))
