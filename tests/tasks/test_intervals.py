"""Bootstrap intervals: they cover what they say, and resample whole units."""

from __future__ import annotations

import numpy as np
import pytest

from danlu.tasks import intervals


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    n_covered = 0
    for seed in range(200):
        weights = rng.integers(1, 20, 60)
        values = weights * rng.normal(2.0, 0.5, 60)
        low, high = intervals.ratio_interval(values, weights, 200, seed)
        n_covered += low <= 2.0 <= high
    assert 0.88 <= n_covered / 200 <= 0.99


def test_the_seed_decides_and_pieces_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values, weights = np.arange(50.0), np.full(50, 3)
    whole = intervals.ratio_interval(values, weights, 500, 7)
    assert whole == intervals.ratio_interval(values, weights, 500, 7)
    assert whole != intervals.ratio_interval(values, weights, 500, 8)
    monkeypatch.setattr(intervals, "PIECE", 60)
    np.testing.assert_allclose(whole, intervals.ratio_interval(values, weights, 500, 7))


def test_units_are_documents_when_there_are_enough() -> None:
    many, few = intervals.units(200, 5000), intervals.units(3, 5000)
    assert (many.by, len(many.starts)) == ("documents", 200)
    assert (few.by, len(few.starts)) == ("windows", intervals.N_BLOCKS)
    assert "only 3 documents" in few.method
    huge = intervals.units(10**6, 10**6)
    assert len(huge.starts) == intervals.MAX_UNITS
    assert (np.diff(huge.starts) > 0).all()
    assert len(intervals.units(1, 7).starts) == 7


def test_correlated_blocks_widen_the_interval() -> None:
    blocks = np.repeat(np.random.default_rng(1).normal(0, 1, 100), 20)
    ones = np.ones(2000)
    starts = intervals.units(1, 2000).starts
    low, high = intervals.ratio_interval(np.add.reduceat(blocks, starts), np.add.reduceat(ones, starts), 400)
    naive = intervals.ratio_interval(blocks, ones, 400)
    assert high - low > 3 * (naive[1] - naive[0])
