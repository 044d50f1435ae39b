"""The noise scale: against McCandlish's formulas, and bias and coverage where the truth is known."""

import math

import numpy as np
import pytest

from danlu.planning.noise_scale import GradientSample, fieller, from_micro_batches, jackknife, noise_scale

DIM, TRUTH = 50, 40.0


def simulated(rng, n_steps, k=4, b=8, truth=TRUTH):
    """Updates whose samples have a gradient of length 1 and a covariance of trace `truth`."""
    spectrum = 1 / np.arange(1, DIM + 1)
    gradient = np.full(DIM, DIM**-0.5)
    each = gradient + np.sqrt(truth * spectrum / spectrum.sum() / b) * rng.standard_normal((n_steps, k, DIM))
    squares, whole = (each**2).sum(2), (each.mean(1) ** 2).sum(1)
    return [from_micro_batches(list(squares[i]), float(whole[i]), [b] * k) for i in range(n_steps)]


def test_equal_pieces_give_mccandlish_s_estimates():
    squares, whole, b, k = [5.0, 3.0, 4.0, 6.0], 2.0, 8, 4
    small, big = sum(squares) / k, b * k
    found = from_micro_batches(squares, whole, [b] * k)
    assert found.noise == pytest.approx((small - whole) / (1 / b - 1 / big))
    assert found.signal == pytest.approx((big * whole - b * small) / (big - b))


def test_unequal_pieces_are_unbiased():
    rng, sizes, n = np.random.default_rng(0), np.array([8, 8, 8, 2]), 20_000
    each = 1.0 + rng.standard_normal((n, 4)) * np.sqrt(9 / sizes)
    whole = (each * sizes / sizes.sum()).sum(1) ** 2
    found = [from_micro_batches(list(each[i] ** 2), float(whole[i]), list(sizes)) for i in range(n)]
    assert np.mean([s.noise for s in found]) == pytest.approx(9, rel=0.03)
    assert np.mean([s.signal for s in found]) == pytest.approx(1, rel=0.03)


def test_draws_without_replacement_are_unbiased():
    rng, n_unique, n = np.random.default_rng(6), 64, 4000
    gradients = 0.3 + rng.standard_normal((n_unique, 8))
    found = []
    for _ in range(n):
        each = gradients[rng.permutation(n_unique)[:32]].reshape(4, 8, 8).mean(1)
        found.append(from_micro_batches(list((each**2).sum(1)), float((each.mean(0) ** 2).sum()), [8] * 4, n_unique))
    assert np.mean([s.signal for s in found]) == pytest.approx((gradients.mean(0) ** 2).sum(), rel=0.02)
    assert np.mean([s.noise for s in found]) == pytest.approx(gradients.var(0, ddof=1).sum(), rel=0.02)


def test_bias_and_coverage_on_known_noise():
    rng = np.random.default_rng(1)
    scales = [noise_scale(simulated(rng, 20)) for _ in range(500)]
    covered = np.mean([s.low <= TRUTH <= s.high for s in scales])
    assert 0.92 <= covered <= 0.98
    assert np.mean([s.value for s in scales]) == pytest.approx(TRUTH, rel=0.05)


def test_a_mean_of_ratios_is_far_off():
    """Why the averages are taken first."""
    samples = simulated(np.random.default_rng(2), 4000)
    assert noise_scale(samples).value == pytest.approx(TRUTH, rel=0.05)
    wrong = float(np.mean([s.noise / s.signal for s in samples]))
    assert abs(wrong / TRUTH - 1) > 0.2


def test_fieller_ends_are_where_the_difference_is_t_standard_errors():
    found = np.array([[s.noise, s.signal] for s in simulated(np.random.default_rng(3), 30)])
    for end in fieller(found, 2.0):
        gap = found[:, 0] - end * found[:, 1]
        assert abs(gap.mean()) == pytest.approx(2 * gap.std(ddof=1) / math.sqrt(30))


def test_a_gradient_lost_in_noise_has_no_upper_end():
    rng = np.random.default_rng(4)
    lost = noise_scale(simulated(rng, 10, truth=1e5))
    assert math.isinf(lost.high)
    assert lost.low > TRUTH
    assert math.isinf(noise_scale([GradientSample(1.0, -1.0)] * 3).value)
    one = noise_scale([GradientSample(4.0, 2.0)])
    assert (one.value, one.low, one.high) == (2.0, 0.0, math.inf)
    assert math.isnan(noise_scale([]).value)


def test_no_noise_is_no_scale():
    samples = [GradientSample(0.001 * (-1) ** i, 1.0 + 0.01 * i) for i in range(10)]
    assert noise_scale(samples).value == pytest.approx(0, abs=1e-3)
    assert noise_scale(samples).high < 0.01


def test_the_jackknife_is_the_plain_one():
    found = np.array([[s.noise, s.signal] for s in simulated(np.random.default_rng(5), 12)])
    whole = found[:, 0].mean() / found[:, 1].mean()
    left = np.array([np.delete(found, i, 0).mean(0) for i in range(12)])
    ratios = left[:, 0] / left[:, 1]
    value, error = jackknife(found)
    assert value == pytest.approx(12 * whole - 11 * ratios.mean())
    assert error == pytest.approx(math.sqrt(11 / 12 * ((ratios - ratios.mean()) ** 2).sum()))
