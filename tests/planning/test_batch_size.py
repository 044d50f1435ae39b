"""The batch of an update: the law and the measurement weighed, under a number of samples and under a time."""

import math

import pytest

from danlu.planning import batch_size
from danlu.planning.batch_size import SHARE, SHARE_SD, StepTime, decide_batch, optimum, progress
from danlu.planning.ledger import Decision
from danlu.planning.noise_scale import NoiseScale
from danlu.planning.priors import MIN_UPDATES

PRIOR = Decision("train.batch", 32, "prior: law", "a law", "", "", in_range=False, low=8, high=128)
FLAT = StepTime({1: 0.01, 256: 0.01})  # an accelerator far from full
LINEAR = StepTime({1: 0.001, 64: 0.064})  # a core that is always full


def scale(value, spread=1.5, n=30):
    return NoiseScale(value, value / spread, value * spread, n, "adaptive")


def test_without_a_measurement_the_law_answers():
    assert decide_batch(PRIOR, None, 1e6) is PRIOR
    lost = decide_batch(PRIOR, NoiseScale(math.inf, 500.0, math.inf, 10), 1e6)
    assert lost is PRIOR


def test_law_and_measurement_are_weighed_by_inverse_variance():
    found = optimum(PRIOR, scale(1000))
    prior_sd = math.log(128 / 8) / (2 * 1.2816)
    own_sd = math.hypot(SHARE_SD, math.log(1.5**2) / (2 * 1.96))
    weights = [prior_sd**-2, own_sd**-2]
    plain = (weights[0] * math.log(32) + weights[1] * math.log(SHARE * 1000)) / sum(weights)
    assert found.log_mean == pytest.approx(plain)
    assert found.log_sd == pytest.approx(sum(weights) ** -0.5)
    assert found.interval[0] < found.batch < found.interval[1]


def test_a_larger_noise_scale_asks_for_a_larger_batch_in_powers_of_two():
    batches = [decide_batch(PRIOR, scale(value), 1e6).value for value in (4, 40, 400, 4000)]
    assert batches == sorted(set(batches))
    assert all(b & (b - 1) == 0 for b in batches)
    decision = decide_batch(PRIOR, scale(4000), 1e6)
    assert decision.low <= decision.value <= decision.high
    assert decision.evidence["noise_scale"]["value"] == 4000
    assert [a["value"] for a in decision.alternatives] == [decision.value // 2, decision.value * 2]
    assert "4e+03" in decision.why


def test_a_run_keeps_its_number_of_updates():
    assert decide_batch(PRIOR, scale(1e5), 16 * MIN_UPDATES).value == 16
    assert decide_batch(PRIOR, scale(1e5), 50).value == 1


def test_under_a_time_the_cheapest_progress_is_taken():
    best = optimum(PRIOR, scale(200))
    full = decide_batch(PRIOR, scale(200), 0, LINEAR, seconds=100)
    idle = decide_batch(PRIOR, scale(200), 0, FLAT, seconds=100)
    assert full.value <= 2 * best.batch  # nothing is won by a larger one
    assert 128 <= idle.value < 2 * 256  # until the samples it costs, or a step that is full, are worth no more
    plain = {b: progress(b, best, FLAT) for b in (1, 32, 256, 1024)}
    assert max(plain, key=plain.get) == 256
    assert "progress a second" in idle.why


def test_progress_is_mccandlish_s_trade():
    best, times = optimum(PRIOR, scale(200)), StepTime({1: 0.01, 1024: 0.05})
    b = 512
    excess = (1 + b / 200) / (1 + best.batch / 200)
    assert progress(b, best, times) == pytest.approx(b / times.at(b) / excess)
    assert batch_size.samples_factor(b, 200) == pytest.approx(1 + b / 200)


def test_step_times_between_and_beyond_the_measured():
    times = StepTime({4: 0.01, 16: 0.04})
    assert times.at(8) == pytest.approx(0.02)
    assert times.at(1) == 0.01
    assert times.at(64) == pytest.approx(0.16)
