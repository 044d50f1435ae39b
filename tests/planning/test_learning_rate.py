"""The rate: where short runs place it, a belief that law and measurement share, and abstention where it cannot pay."""

import math

import numpy as np
import pytest

from danlu.planning import learning_rate
from danlu.planning.choices import Choices
from danlu.planning.learning_rate import Belief, Measurement, Probe, pays, probe
from danlu.planning.ledger import Decision
from danlu.planning.rate_shape import WIDTHS, Point, located
from danlu.planning.trials import Outcome

CHOICES = Choices(
    device="cpu", threads=1, precision="fp32", operations="plain", attention="fused", compile=False, batch=64, micro_batch=64,
    n_steps=4000, model={}, optimizer={"weight_decay": 0.1}, evaluate_every=None, signals_every=None,
    save_every_steps=None, save_every_s=None,
)  # fmt: skip


def bowl_at(best, seen=None, cliff=math.inf):
    """A RunTrial whose loss is lowest at `best`."""

    def run_trial(trial):
        rate, n = trial.choices.optimizer["lr"], trial.choices.n_steps
        if seen is not None:
            seen.append(trial)
        if rate > cliff:
            return Outcome((3.0, math.inf), (1.0, 1.0), (), 0.01, 0.001, "loss inf")
        end = 5.0 - 3.0 * math.exp(-(math.log(rate / best) ** 2) / (2 * 2.2**2))
        losses = tuple(np.linspace(5.0, end, n)[: n - n // 5]) + (end,) * (n // 5)
        return Outcome(losses, (1.0,) * n, (), 0.01, 0.001)

    return run_trial


def plainly(points, below=2.1, above=2.5):
    """The best log rate and its sd by brute force over a coarse grid of rates and falls."""
    start, found = points[0].start, []
    deepest = max(start - p.loss for p in points)
    for c in np.arange(math.log(1e-7), math.log(1e2), 0.02):
        best = -math.inf
        for s in np.geomspace(deepest, 8 * deepest, 400):
            chi = -0.5 * (math.log(s / deepest) / 0.5) ** 2
            for p in points:
                d = math.log(p.rate) - c
                w = below if d < 0 else above
                miss = start - p.loss - s * math.exp(-(d**2) / (2 * w**2))
                chi -= 0.5 * miss**2 / ((0.06 * deepest) ** 2 + p.error**2)
            best = max(best, chi)
        found.append((c, best))
    c, log = np.array(found).T
    weights = np.exp(log - log.max())
    mean = weights @ c / weights.sum()
    return mean, math.sqrt(weights @ (c - mean) ** 2 / weights.sum())


@pytest.mark.parametrize("rates", [(1e-3, 3e-3, 9e-3), (1e-4, 3e-4, 9e-4)])
def test_the_best_rate_is_located_also_from_one_side(rates):
    points = [
        Point(r, 5 - 3 * math.exp(-(math.log(r / 4e-3) ** 2) / (2 * (2.1 if r < 4e-3 else 2.5) ** 2)), 0.01, 5.0)
        for r in rates
    ]
    found = located(points)
    center, sd = plainly(points)
    assert found.center == pytest.approx(
        center, abs=0.1
    )  # the plain one takes the likeliest fall, without the error's trade
    assert found.sd == pytest.approx(sd, rel=0.25)
    assert abs(found.center - math.log(4e-3)) < 2 * found.sd + 0.1
    assert found.loss(found.center) <= min(p.loss for p in points) + 1e-6


def test_muons_short_runs_are_read_by_its_own_shape():
    """What two runs of a byte model fell by, where 0.004 was the best of eleven: AdamW's shape says 0.008."""
    points = [Point(0.001, 5.5 - 1.602, 0.01, 5.5), Point(0.009, 5.5 - 2.573, 0.01, 5.5)]
    found = located(points, WIDTHS["muon"])
    center, _ = plainly(points, *WIDTHS["muon"])
    assert found.center == pytest.approx(center, abs=0.1)
    assert abs(found.center - math.log(4e-3)) < math.log(1.5)
    assert abs(located(points).center - math.log(4e-3)) > math.log(1.5)


def test_rates_that_diverged_lie_above_and_nothing_that_fell_is_nothing():
    points = [Point(1e-3, 3.0, 0.01, 5.0), Point(3e-3, 3.0, 0.01, 5.0)]
    cliff = located([*points, Point(9e-3, math.inf, 0.0, 5.0)])
    assert cliff.center < located(points).center
    assert located([Point(1e-3, 5.5, 0.01, 5.0), Point(1e-2, math.inf, 0.0, 5.0)]) is None


def test_beliefs_combine_by_inverse_variance_and_a_far_off_law_gives_way():
    law = Belief.of_law(1e-3, 0.7)
    near = law.seen(math.log(2e-3), 0.5)
    weight = 0.7**2 / (0.7**2 + 0.5**2)
    assert near.mean == pytest.approx(math.log(1e-3) + weight * math.log(2), abs=0.1)
    assert near.sd < 0.5
    far = Belief.of_law(8e-3, 0.7).seen(math.log(1e-3), 0.3)  # eight times too high
    normal_mean = math.log(8e-3) + (0.7**2 / (0.7**2 + 0.3**2)) * math.log(1 / 8)
    assert far.mean < normal_mean
    assert math.exp(far.mean) < 1.5e-3


def test_the_rate_chosen_is_shaded_down_more_the_less_is_known():
    sharp, vague = (Belief.of_law(1e-3, sd).seen(math.log(1e-3), sd) for sd in (0.2, 1.0))
    assert 0.97e-3 < sharp.best()[0] < 1.01e-3
    assert vague.best()[0] < 0.9e-3
    assert sharp.best()[1] < vague.best()[1]


@pytest.mark.parametrize("wrong_by", [1 / 8, 1.0, 8.0])
def test_a_law_wrong_by_eight_is_put_right(wrong_by):
    measured = Measurement(bowl_at(4e-3), CHOICES, Probe(0.01, 8, 60), seed=0)
    measured.spread(4e-3 * wrong_by, allowed_s=1e9)
    low, high = 1e-3 * wrong_by, 16e-3 * wrong_by
    law = learning_rate.Decision("optimizer.lr", 4e-3 * wrong_by, "prior: x", "law.", "", "", False, low, high)
    found = learning_rate.decided(law, Belief.of_law(law.value, learning_rate.sd_of(law)), measured)
    assert 4e-3 / 2 < found.value < 4e-3 * 2
    assert found.low < found.value < found.high
    assert found.evidence["chosen"] == found.value


def test_the_short_run_is_as_far_from_its_best_batch_as_the_whole_one():
    short = probe(CHOICES, context=64, share=0.02)
    assert short.batch == max(8, round(64 * 0.02**0.571))
    assert short.n_steps == int(0.02 * 4000 * 64 / short.batch)
    assert probe(CHOICES.model_copy(update={"n_steps": 50}), context=64, share=0.02) is None


def test_a_cliff_is_no_minimum_and_time_is_kept():
    seen = []
    measured = Measurement(bowl_at(4e-3, seen, cliff=6e-3), CHOICES, Probe(0.01, 8, 60), seed=3)
    measured.spread(4e-3, allowed_s=1e9)
    assert [p.rate for p in measured.points if math.isinf(p.loss)] == pytest.approx([8e-3])
    assert all(t.choices.batch == 8 and t.seed == 3 and not t.is_scored for t in seen)
    short = Measurement(bowl_at(4e-3), CHOICES, Probe(0.01, 8, 60), seed=3)
    short.spread(4e-3, allowed_s=0.0)
    assert len(short.points) <= 1


def test_measuring_pays_only_where_the_law_is_vague_or_runs_are_cheap():
    assert pays(Belief.of_law(1e-3, 1.0), 0.08)
    assert not pays(Belief.of_law(1e-3, 0.3), 0.08)
    assert pays(Belief.of_law(1e-3, 0.4), 0.001)


def test_short_runs_cost_little_and_are_left_out_where_they_would_say_nothing():
    asked = learning_rate.affordable(CHOICES, 64, 0.02)
    assert 0.004 < learning_rate.cost(CHOICES, asked) <= 0.006
    plain = asked.n_steps * (0.4 + 0.6 * asked.batch / 64) / 4000
    assert learning_rate.cost(CHOICES, asked) == pytest.approx(plain)
    shorter = CHOICES.model_copy(update={"n_steps": 1000})
    least = learning_rate.affordable(shorter, 64, 0.02)
    assert least.n_steps == pytest.approx(24, abs=3)
    assert learning_rate.cost(shorter, least) > 0.006
    assert learning_rate.affordable(shorter, 64, 0.007) is None
    assert learning_rate.affordable(shorter, 1, 0.02) is None  # samples by number need more steps than that


@pytest.mark.parametrize(("factor", "is_told"), [(1.0, False), (2.0, False), (8.0, True), (1 / 8, True), (100.0, True)])
def test_a_given_rate_far_from_the_law_is_told_what_it_costs(factor, is_told):
    law = Decision("optimizer.lr", 0.01, "prior: some_law", "", "a paper", "", True, 0.005, 0.02)
    told = learning_rate.dear(0.01 * factor, law)
    assert (told is not None) == is_told
    if told:
        assert (told.value, told.origin, told.low, told.high) == (0.01 * factor, "given", 0.005, 0.02)
        assert "by some_law the best is 0.01, and this would cost" in told.why
        assert ("at least" in told.why) == (factor == 100.0)


def test_what_it_costs_is_the_parabola_of_the_known_rate():
    """A law that is nearly certain: BELOW d^2 per cent of the loss."""
    law = Decision("optimizer.lr", 0.01, "prior: some_law", "", "", "", True, 0.01 / 1.01, 0.01 * 1.01)
    told = learning_rate.dear(0.01 / 6, law)
    lost = learning_rate.BELOW * math.log(6) ** 2
    assert f"about {lost:.1f}% of the loss" in told.why


def test_a_house_rule_says_nothing_against_a_given_rate():
    law = Decision("optimizer.lr", 0.01, "prior: house rule", "", "", "nowhere tested", False, 0.009, 0.011)
    assert learning_rate.dear(1.0, law) is None
