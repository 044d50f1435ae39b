"""Laws of curves: held to plain least squares, to the textbook posterior, and to sums written out."""

import numpy as np
import pytest

from danlu.planning import curves
from danlu.planning.curves import Prior


def test_with_a_flat_prior_and_one_shape_it_is_least_squares():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    y = 2 + 3 * x**-0.5 + np.array([0.01, -0.02, 0.005, 0.01])
    prior = Prior([0.5], [1.0], np.zeros(2), np.full(2, 1e3), (False, False))
    law = curves.fitted(curves.power_design, x[:, None], y, np.full(4, 0.01), prior)
    rows = np.stack([np.ones(4), x**-0.5], axis=1)
    expected, *_ = np.linalg.lstsq(rows, y, rcond=None)
    assert law.nodes[0].mean == pytest.approx(expected, abs=1e-6)
    mean, sd = law.at(np.array([[16.0]]))
    row = np.array([1, 16**-0.5])
    assert mean[0] == pytest.approx(row @ expected, abs=1e-6)
    assert sd[0] == pytest.approx(0.01 * np.sqrt(row @ np.linalg.inv(rows.T @ rows) @ row), rel=1e-6)


def test_the_posterior_is_that_of_one_number():
    """Prior N(m, s), one look y of noise e: precision-weighted mean (Bishop 2006, 2.141)."""
    prior = Prior([0.0], [1.0], np.array([1.0]), np.array([0.5]), (False,))
    law = curves.fitted(lambda x, b: np.ones((len(x), 1)), np.zeros((1, 1)), np.array([2.0]), np.array([0.25]), prior)
    assert law.nodes[0].mean[0] == pytest.approx((1 / 0.25 + 2 / 0.0625) / (1 / 0.25 + 1 / 0.0625))
    assert law.nodes[0].covariance[0, 0] == pytest.approx(1 / (1 / 0.25 + 1 / 0.0625))


def test_shapes_are_weighted_by_how_well_they_explain():
    x = np.geomspace(1, 100, 12)[:, None]
    y = 1.5 + 2 * x[:, 0] ** -0.3
    grid = [0.1, 0.2, 0.3, 0.4, 0.6]
    law = curves.fitted(
        curves.power_design, x, y, 0.002 * y, Prior(grid, [1.0] * 5, np.ones(2), np.full(2, 5.0), (True, True))
    )
    best = max(law.nodes, key=lambda node: node.weight)
    assert best.shape == 0.3
    assert sum(node.weight for node in law.nodes) == pytest.approx(1.0)
    mean, sd = law.at(np.array([[1000.0]]))
    assert abs(mean[0] - (1.5 + 2 * 1000**-0.3)) < 2 * sd[0] < 0.1


def test_a_coefficient_that_may_not_be_negative_is_zero():
    x = np.array([[1.0], [2.0], [4.0]])
    y = np.array([1.0, 1.1, 1.2])  # rises: B would be negative
    law = curves.fitted(
        curves.power_design, x, y, np.full(3, 0.01), Prior([0.5], [1.0], np.zeros(2), np.full(2, 10.0), (True, True))
    )
    assert law.nodes[0].mean[1] == 0
    assert law.nodes[0].mean[0] == pytest.approx(1.1, abs=1e-3)


def test_areas_are_the_sums_of_the_paper():
    rates, fade = np.array([0.5, 1.0, 1.0, 0.6, 0.3, 0.0]), 0.9
    s1, s2 = curves.areas(rates, fade)
    assert s1 == pytest.approx(np.cumsum(rates))
    plain = 0.0
    for i in range(len(rates)):
        plain += sum(max(0.0, rates[k - 1] - rates[k]) * fade ** (i - k) for k in range(1, i + 1))
        assert s2[i] == pytest.approx(plain)


def test_a_warm_up_does_not_count_as_a_negative_drop():
    flat = curves.areas(np.ones(5), 0.99)[1]
    warmed = curves.areas(np.array([0.2, 0.6, 1.0, 1.0, 1.0]), 0.99)[1]
    assert np.all(flat == 0)
    assert np.all(warmed == 0)


def test_bent_is_a_line_at_zero_and_flattens_beyond():
    x = np.array([0.0, 1.0, 2.0])
    assert curves.bent(x, 0.0) == pytest.approx(x)
    assert curves.bent(x, 0.7) == pytest.approx((1 - np.exp(-0.7 * x)) / 0.7)
    assert curves.bent(x, 1e-7) == pytest.approx(x, abs=1e-5)
