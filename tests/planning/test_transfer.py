"""Rates carried from a small or short run to the whole one."""

import math
from dataclasses import replace

import pytest

from danlu.base.errors import UserError
from danlu.planning import transfer as laws
from danlu.planning.ledger import Decision
from danlu.planning.transfer import DEPTH, HORIZON, WIDTH, Known, Run, carried, transfer

SMALL = Run(width=64, n_layers=2, batch=1024, n_steps=500)
LARGE = Run(width=1024, n_layers=12, batch=2.6e5, n_steps=20_000, n_hidden=1.5e8)
BEST = Known(0.01, 0.2)


def test_alike_runs_have_the_same_rate():
    for run in (SMALL, LARGE):
        found = transfer(BEST, run, run, "adamw", "standard")
        assert (found.best, found.steps, found.in_range) == (BEST, (), True)


def test_our_parametrizations_change_nothing_and_say_how_sure_that_is():
    found = transfer(BEST, SMALL, replace(SMALL, width=512), "muon", "mup")
    assert found.best.rate == BEST.rate
    assert found.best.sd == pytest.approx(math.hypot(0.2, WIDTH["muon", "mup"].sd * math.log(8)))
    assert found.in_range
    assert not transfer(BEST, SMALL, replace(SMALL, width=1024), "muon", "mup").in_range


def test_under_the_standard_parametrization_the_rate_falls_with_width():
    found = transfer(BEST, SMALL, replace(SMALL, width=512), "adamw", "standard")
    power = WIDTH["adamw", "standard"]
    assert found.best.rate == pytest.approx(0.01 * 8**power.exponent)
    assert found.best.rate < 0.01 / 2


def test_every_difference_multiplies_the_rate_and_adds_to_the_variance():
    target = Run(width=128, n_layers=4, batch=2048, n_steps=1000)
    found = transfer(BEST, SMALL, target, "adamw", "completep")
    assert [s.name for s in found.steps] == ["width", "depth", "length", "batch"]
    assert found.best.rate == pytest.approx(0.01 * math.prod(s.factor for s in found.steps))
    assert found.best.sd**2 == pytest.approx(0.2**2 + sum(s.sd**2 for s in found.steps))
    assert all(s.name in found.why for s in found.steps)


def test_a_longer_run_of_a_small_model_wants_a_lower_rate():
    found = transfer(BEST, SMALL, replace(SMALL, n_steps=2000), "adamw", "standard")
    assert found.best.rate == pytest.approx(0.01 * 4**HORIZON.exponent)
    assert -0.45 < HORIZON.exponent < -0.1


def test_what_was_not_measured_is_said_and_is_less_sure():
    wide = replace(SMALL, width=128)
    unknown, known = (transfer(BEST, SMALL, wide, kind, "mup") for kind in ("sgd", "adamw"))
    assert not unknown.in_range
    assert "not measured" in unknown.why
    assert unknown.best.sd > known.best.sd
    assert transfer(BEST, SMALL, replace(SMALL, n_layers=4), "adamw", "mup").in_range is (("adamw", "mup") in DEPTH)


def plain_law(batch, n_tokens):
    x = batch / (0.58 * n_tokens**0.571)
    return (1 + 0.16 / x) ** -1.75


def test_length_and_batch_of_large_models_follow_one_law():
    target = replace(LARGE, batch=5.2e5, n_steps=30_000)
    found = transfer(BEST, LARGE, target, "adamw", "standard")
    wanted = plain_law(5.2e5, 5.2e5 * 30_000) / plain_law(2.6e5, 2.6e5 * 20_000)
    assert found.best.rate == pytest.approx(0.01 * wanted)
    assert [s.name for s in found.steps] == ["length and batch"]


def test_the_law_changes_nothing_where_the_batch_grows_with_its_best():
    n_tokens = 4 * LARGE.batch * LARGE.n_steps
    batch = LARGE.batch * 4**0.571
    found = transfer(BEST, LARGE, replace(LARGE, batch=batch, n_steps=n_tokens / batch), "adamw", "standard")
    assert found.best.rate == pytest.approx(0.01)
    assert found.best.sd > BEST.sd


def test_the_law_agrees_with_bjorck_at_a_fixed_batch_and_with_the_root_rule_where_they_hold():
    """2409.19913: D^-0.32 at a fixed batch; 2205.10287: root of the batch at a fixed number of tokens, within a factor of 2."""
    n_tokens = 1e10
    at = LARGE.batch_ratio
    third = replace(LARGE, batch=0.34 * 0.58 * n_tokens**0.571)
    third = replace(third, n_steps=n_tokens / third.batch)
    longer = transfer(BEST, third, replace(third, n_steps=third.n_steps * 1.1), "adamw", "standard").best.rate / 0.01
    assert math.log(longer) / math.log(1.1) == pytest.approx(-0.32, abs=0.03)
    wider = replace(third, batch=third.batch * 1.1, n_steps=third.n_steps / 1.1)
    larger = transfer(BEST, third, wider, "adamw", "standard").best.rate / 0.01
    assert math.log(larger) / math.log(1.1) == pytest.approx(0.5, abs=0.08)
    assert at == pytest.approx(LARGE.batch / (0.58 * (LARGE.batch * LARGE.n_steps) ** 0.571))


def test_a_run_without_a_length_is_refused():
    with pytest.raises(UserError, match="positive"):
        transfer(BEST, SMALL, replace(SMALL, n_steps=0), "adamw", "standard")


def test_the_measured_laws_have_a_source_and_a_reach():
    for power in (*WIDTH.values(), *DEPTH.values(), laws.HORIZON, laws.BATCH):
        assert power.reach > 1
        assert power.sd > 0


def law_of(value: float, factor: float) -> Decision:
    return Decision("optimizer.lr", value, "prior: x", "W.", "S", "V", True, value / factor, value * factor)


def test_law_and_carried_rate_are_weighed_by_how_well_each_is_known():
    def found(law, sd, holds_law=False):
        best = Known(0.01, sd)
        moved = transfer(best, SMALL, replace(SMALL, width=256), "muon", "mup")
        return carried(law, "runs/small", best, moved, holds_law)

    sure, unsure = (found(law_of(0.002, 4), sd) for sd in (0.05, 2.0))
    assert 0.006 < sure.value < 0.0105
    assert 0.0015 < unsure.value < 0.003
    assert sure.low < sure.value < sure.high
    assert sure.high / sure.low < unsure.high / unsure.low
    assert "runs/small ran at 0.01" in sure.why
    assert "width x1" in sure.why
    certain = found(law_of(0.002, 1.05), 0.5)
    assert certain.value == pytest.approx(0.002, rel=0.15)
    assert [a["value"] for a in certain.alternatives] == [0.002, 0.01]
    measured = found(law_of(0.0001, 1.05), 0.2, holds_law=True)  # which has weighed the law once already
    assert 0.007 < measured.value <= 0.01
    assert "the law is in it" in measured.why


def test_a_batch_of_an_optimizer_that_was_not_measured_follows_the_root_and_sgds_the_batch():
    wide = replace(SMALL, batch=4096, n_steps=125)
    for kind, factor in (("lion", 2.0), ("rmsprop", 2.0), ("sgd", 4.0)):
        found = transfer(BEST, SMALL, wide, kind, "standard")
        assert found.best.rate == pytest.approx(0.01 * factor)
        assert not found.in_range


def test_muons_batch_has_a_power_of_its_own():
    found = transfer(BEST, SMALL, replace(SMALL, batch=4096, n_steps=125), "muon", "mup")
    assert found.best.rate == pytest.approx(0.01 * 4**0.6)
    assert found.in_range
