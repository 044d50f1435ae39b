"""Forecasts of made-up runs whose end is known, and the runs of which nothing can be said."""

import math

import numpy as np
import pytest

from danlu.optim import SCHEDULES
from danlu.planning import ensemble, length
from danlu.planning.forks import forks_until
from danlu.planning.length import expected_at_plan, forecast
from danlu.planning.seen import Earlier, ForkSeen, Seen, Setting
from danlu.planning.worth import Lengths

N = 20_000
SETTING = Setting("adamw", 1e-3, 32)


def law(n, floor=2.0, b=0.35, scale=20.0):
    """Loss of a cooled run of n steps."""
    return floor + scale * np.asarray(n, float) ** -b


def made(loss=law, n_steps=N, gain=0.04, noise=0.02, seed=0, per_pass=10**9, start=10.0, earlier=(), **forks):
    """What a run shows at a tenth of it, whose cooled copies follow a law and whose full-rate curve lies higher."""
    schedule, rng = SCHEDULES["wsd"](), np.random.default_rng(seed)
    rates = tuple(schedule.lr_at(step, n_steps, 1.0) for step in range(n_steps))
    planned = forks_until(n_steps // 10)
    shown = planned[-1][0]
    losses = np.minimum(start, loss(np.arange(1, shown + 1)) * math.exp(gain)) * np.exp(noise * rng.normal(size=shown))
    seen = [ForkSeen(s, k, float(loss(s + k)), 0.0, 1.0, float(loss(s)) * math.exp(gain)) for s, k in planned]
    return Seen(SETTING, rates, tuple(losses), tuple(seen), 1000, per_pass * 1000, 0.1, earlier)


@pytest.mark.parametrize(
    ("floor", "b", "scale"), [(2.0, 0.35, 20.0), (1.0, 0.25, 12.0), (2.5, 0.35, 12.0), (2.0, 0.3, 4.0)]
)
def test_a_run_that_follows_a_law_is_told(floor, b, scale):
    seen = made(lambda n: law(n, floor, b, scale))
    (found, last) = forecast(seen).predictions
    truth = float(law(N, floor, b, scale))
    assert found.value == pytest.approx(truth, rel=0.045)
    assert found.low80 < truth < found.high80
    assert (found.name, last.name) == ("final_loss", "validation_loss")
    assert last.value == pytest.approx(found.value)


def test_every_law_finds_the_end_of_its_own_run():
    seen = made(noise=0.0)
    laws = ensemble.all_laws(seen.points(), np.array(seen.rates), [length.copy_rates(seen, f) for f in seen.forks])
    assert set(laws) == set(length.WEIGHTS)
    for name, value in laws.items():
        assert value == pytest.approx(math.log(law(N)), abs=0.07), name


def test_the_curve_and_the_points_are_those_of_the_law():
    seen = made(lambda n: law(n, 2.0, 0.3, 4.0), noise=0.0)
    found = forecast(seen)
    value = found.predictions[0].value
    steps, losses = zip(*found.curve, strict=True)
    middle = len(steps) // 2
    assert steps[-1] == N
    assert losses[-1] == pytest.approx(value, rel=0.01)
    assert losses[middle] == pytest.approx(law(steps[middle], 2.0, 0.3, 4.0) * math.exp(0.04), rel=0.04)
    cheapest = found.points["cheapest within 1%"]
    assert cheapest["steps"] < N
    assert value < cheapest["loss"] <= 1.011 * value
    assert (cheapest["units"], cheapest["seconds"]) == (1000 * cheapest["steps"], round(0.1 * cheapest["steps"], 1))
    doubtful = forecast(made(noise=0.0))
    assert doubtful.predictions[0].is_known
    assert doubtful.points == {}


def test_beyond_the_recommended_length_a_doubling_gains_less_than_a_percent():
    seen = made(lambda n: law(n, 2.0, 0.9, 400.0), noise=0.0)
    points = seen.points()
    lengths = Lengths(seen, points, math.log(float(law(N, 2.0, 0.9, 400.0))))
    at = lengths.points()["recommended"]["steps"]
    gain = lambda n: float(lengths.logs(np.array([float(n)]))[0] - lengths.logs(np.array([2.0 * n]))[0])  # noqa: E731
    assert gain(at) < 0.01 <= gain(0.9 * at)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (made(lambda n: 2 + 1e-4 * np.asarray(n, float)), "validation rises already"),
        (made(lambda n: 7 - 0.5 * np.log10(n), start=7.0), "learning has only begun"),
        (made(lambda n: 8 * np.exp(-np.asarray(n, float) / 4000)), "falls faster and faster"),
        (made(lambda n: 30 * np.asarray(n, float) ** -0.9), "too young"),
    ],
    ids=["over-fitting", "plateau", "steepening", "wide"],
)
def test_what_cannot_be_told_is_not(seen, said):
    found = forecast(seen)
    assert said in found.sentence
    assert [p.value for p in found.predictions] == [None, None]
    assert (found.curve, found.points) == ((), {})


def test_a_copy_that_diverged_says_so():
    seen = made()
    forks = (seen.forks[0], ForkSeen(1800, 200, None, 0.0, 1.0))
    assert "a cooled copy diverged" in forecast(Seen(SETTING, seen.rates, seen.losses, forks, 1, 10**9)).sentence


def test_repeated_data_are_worth_less():
    points = made(per_pass=100).points()
    passes = np.array([1.0, 2.0, 5.0, 1e6])
    plain = [100.0 if p <= 1 else 100 * (1 + 15.4 * (1 - math.exp(-(p - 1) / 15.4))) for p in passes]
    assert points.fresh(100 * passes) == pytest.approx(plain)
    found = forecast(made(per_pass=2_000)).predictions
    assert found[0].value > forecast(made()).predictions[0].value
    assert not found[1].is_known


def test_earlier_runs_say_where_it_ends():
    """Of a run that is too young for any law, and of one whose laws say something else."""
    young = made(lambda n: 30 * np.asarray(n, float) ** -0.9)
    now = math.log(young.forks[-1].before)
    alike = tuple(Earlier(str(i), SETTING, now + 0.01 * i, math.log(0.2) + 0.01 * i) for i in (-1, 0, 1))
    found = forecast(Seen(SETTING, young.rates, young.losses, young.forks, 1000, 10**12, 0.1, alike))
    assert found.predictions[0].value == pytest.approx(0.2, rel=0.05)
    assert len(found.evidence["earlier"]) == 3
    lawful = made()
    now = math.log(lawful.forks[-1].before)
    for end, by in ((0.5, "earlier runs"), (math.log(law(N)), "laws and earlier runs")):
        alike = tuple(Earlier(str(i), SETTING, now, end + 0.01 * i) for i in (-1, 0, 1))
        told = forecast(made(earlier=alike)).predictions[0]
        assert told.origin == f"forecast: {by}"
        assert math.log(told.value) == pytest.approx(end, abs=0.02)


def test_a_look_of_an_earlier_run_is_taken_at_the_same_share():
    run = Earlier.of("a", SETTING, [(10, 4.0), (20, 2.0), (100, 1.0)], 100, math.sqrt(0.1 * 0.2))
    assert run.now == pytest.approx(math.log(math.sqrt(8)))
    assert run.end == 0.0
    assert Earlier.of("a", SETTING, [(50, 4.0), (100, 1.0)], 100, 0.1) is None
    assert Earlier.of("a", SETTING, [(10, 4.0), (50, 0.1), (100, -1.0)], 100, 0.2) is None


def test_the_part_that_looks_see_is_carried_to_the_whole_split():
    seen = made()
    last = seen.forks[-1]
    forks = (seen.forks[0], ForkSeen(last.step, last.n_cool, last.loss, 0.0, 1.0, last.before, 1.1 * last.loss))
    found = forecast(Seen(SETTING, seen.rates, seen.losses, forks, 1000, 10**12))
    assert found.predictions[0].value == pytest.approx(1.1 * found.predictions[1].value)


def test_before_the_run_earlier_runs_say_where_it_will_end():
    assert expected_at_plan(SETTING, []) == []
    runs = [Earlier(str(i), SETTING, 0.0, end) for i, end in enumerate((0.99, 1.0, 1.01))]
    final, last = expected_at_plan(SETTING, runs)
    assert (final.name, last.name) == ("final_loss", "validation_loss")
    assert final.value == pytest.approx(math.e, rel=1e-3)
    assert "3 earlier runs" in final.why
    unlike = expected_at_plan(Setting("adamw", 1.0, 1), [Earlier("a", Setting("adamw", 1e-4, 512), 0.0, 1.0)])
    assert not unlike[0].is_known
    assert "say only that it ends between" in unlike[0].why
