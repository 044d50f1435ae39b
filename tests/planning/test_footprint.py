"""Memory by micro-batch: a line through measured peaks, with bounds on the safe side."""

import math

import numpy as np
import pytest

from danlu.planning.footprint import PAGES_BYTES, Rehearsal, fit, spread, touched_bytes, upper

MB = 2**20


def rehearsal(own, whole=0, **more):
    """A rehearsal whose steps peak at `own` bytes, and all of it at `whole`."""
    base = {"base_own_bytes": 100 * MB, "file_bytes": 50 * MB, "closing_s": 0.1}
    return Rehearsal(steps=(0.1,), steps_bytes=own + 150 * MB, peak_bytes=max(own, whole) + 150 * MB, **base | more)


def test_two_points_give_the_line_that_least_squares_gives():
    points = [(m, rehearsal(int(30 * MB + 7.5 * MB * m))) for m in (1, 2, 4)]
    line = fit(points)
    slope, fixed = np.polyfit([1, 2, 4], [r.steps_own_bytes for _, r in points], 1)
    assert line.slope == pytest.approx(slope)
    assert line.fixed == pytest.approx(fixed)
    assert line.at(64) == pytest.approx(30 * MB + 7.5 * MB * 64)
    assert line.upper(8) > line.at(8)
    assert line.upper(64) == pytest.approx(1.25 * line.at(64) + 32 * MB)


def test_one_point_bounds_larger_micro_batches_from_above_and_never_promises_less_than_looks_need():
    line = fit([(4, rehearsal(40 * MB, whole=60 * MB))])
    assert line.at(8) >= 80 * MB
    assert line.at(1) >= 60 * MB


def test_failed_rehearsals_say_nothing():
    good = rehearsal(40 * MB)
    assert fit([(4, good), (8, Rehearsal(trouble="out of memory"))]) == fit([(4, good)])
    with pytest.raises(ValueError, match="no rehearsal"):
        fit([(8, Rehearsal(trouble="out of memory"))])


def test_a_process_holds_what_it_held_its_own_growth_libraries_and_touched_pages():
    found = rehearsal(
        40 * MB, parent_own_bytes=120 * MB, parent_file_bytes=80 * MB, new_file_bytes=5 * MB, mapped_bytes=10 * MB
    )
    assert found.own_bytes == 40 * MB
    assert found.process_bytes(40 * MB, 0) == 245 * MB
    assert found.process_bytes(40 * MB, 1e9) == pytest.approx(255 * MB)


def test_touched_pages_are_what_random_touches_leave_touched():
    n_pages, n = 400, 500
    drawn = [len(set(np.random.default_rng(seed).integers(0, n_pages, n))) for seed in range(200)]
    expected = touched_bytes(n_pages * PAGES_BYTES, n) / PAGES_BYTES
    assert expected == pytest.approx(np.mean(drawn), rel=0.01)
    assert touched_bytes(0, n) == 0


def test_spread_is_the_relative_standard_error_of_the_mean():
    seconds = [1.0, 1.2, 0.8, 1.0]
    assert spread(seconds) == pytest.approx(np.std(seconds, ddof=1) / 2)
    assert spread([1.0]) == pytest.approx(0.1)
    assert math.isinf(Rehearsal(trouble="x").step_s)
    assert upper(100 * MB) > 100 * MB
