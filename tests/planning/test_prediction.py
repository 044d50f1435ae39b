"""Intervals are those of the error they were made from, and a miss is counted in half-widths."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from danlu.planning.prediction import Z80, Z95, Prediction, predict, unknown


def test_the_intervals_hold_what_they_say():
    assert NormalDist().cdf(Z80) - NormalDist().cdf(-Z80) == pytest.approx(0.80, abs=1e-4)
    assert NormalDist().cdf(Z95) - NormalDist().cdf(-Z95) == pytest.approx(0.95, abs=1e-4)
    drawn = np.random.default_rng(0).standard_normal(20_000)
    for made, outcomes in (
        (predict("x", 3.0, "s", "", "m", factor=1.3), 3.0 * 1.3**drawn),
        (predict("x", -3.0, "", "", "m", sd=0.5), -3.0 + 0.5 * drawn),
    ):
        for level in (80, 95):
            inside = np.mean([made.holds(x, level) for x in outcomes])
            assert inside == pytest.approx(level / 100, abs=0.01)


def test_plain_numbers():
    made = predict("train_s", 100.0, "s", "why", "timing", factor=1.1)
    assert made.low80 == pytest.approx(100 / 1.1**1.2816)
    assert made.high95 == pytest.approx(100 * 1.1**1.96)
    assert made.miss(100 * 1.1**1.2816, 80) == pytest.approx(1.0)
    assert made.miss(100 / 1.1**1.96, 95) == pytest.approx(-1.0)
    assert made.miss(-1.0, 80) == -math.inf
    exact = predict("n_steps", 40, "steps", "why", "counted", sd=0)
    assert exact.holds(40, 80)
    assert not exact.holds(39, 95)
    assert (exact.miss(40, 80), exact.miss(41, 80)) == (0.0, math.inf)


def test_each_side_has_its_own_width():
    made = Prediction("loss", 2.0, "nats", 1.9, 2.4, 1.8, 2.8, "why", "m")
    assert made.miss(2.4, 80) == pytest.approx(1.0)
    assert made.miss(1.9, 80) == pytest.approx(-1.0)
    wide = made.widened(2.0, 0.5, 12)
    assert wide.low80 == pytest.approx(2.0 * (1.9 / 2.0) ** 2)
    assert wide.high80 == pytest.approx(2.0 * 1.2**2)
    assert wide.high95 >= wide.high80
    assert wide.low95 <= wide.low80
    back = wide.as_stated()
    for name in ("low80", "high80", "low95", "high95"):
        assert getattr(back, name) == pytest.approx(getattr(made, name))
    assert back.calibration == {}


def test_what_is_not_known_says_so():
    nothing = unknown("validation_loss", "nats", "delayed generalisation was seen")
    assert not nothing.is_known
    assert nothing.widened(2.0, 2.0, 3) is nothing
    with pytest.raises(ValueError, match="no interval"):
        nothing.ends(80)
    assert Prediction.from_json(nothing.to_json()) == nothing


@pytest.mark.parametrize(
    "wrong",
    [{}, {"sd": 1.0, "factor": 1.1}, {"factor": 0.9}, {"factor": 1.1, "value": -1.0}, {"value": math.nan, "sd": 1}],
)
def test_a_prediction_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="x"):
        predict(**{"name": "x", "value": 1.0, "unit": "", "why": "", "origin": ""} | wrong)
