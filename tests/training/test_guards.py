"""Guards decide before the update, remember across a resume, and name the numbers they rest on."""

import math

import pytest

from danlu.sections import Train
from danlu.training.guards import MAX_ROLL_BACKS, SPIKE_MIN, Guard, Stopper, spike_score


def calm(n=60):
    return [2.0 + 0.01 * math.sin(i) for i in range(n)]


@pytest.mark.parametrize("bad", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
@pytest.mark.parametrize(("policy", "verdict"), [("stop", "stop"), ("skip 2", "skip"), ("roll back", "roll back")])
def test_what_is_not_finite_is_never_an_update(bad, policy, verdict):
    decided, said = Guard(policy, "warn").judge(7, *bad, ids=[3, 4])
    assert decided == verdict
    assert "step 7" in said
    assert "3, 4" in said


def test_skips_in_a_row_are_counted_and_forgiven():
    guard = Guard("skip 2", "warn")
    assert [guard.judge(s, math.nan, 1.0, [])[0] for s in range(3)] == ["skip", "skip", "stop"]
    guard = Guard("skip 2", "warn")
    verdicts = [
        guard.judge(s, loss, 1.0, [])[0] for s, loss in enumerate([math.nan, math.nan, 2.0, math.nan, math.nan])
    ]
    assert verdicts == ["skip", "skip", "update", "skip", "skip"]


def test_roll_backs_end():
    guard = Guard("roll back", "warn", n_roll_backs=MAX_ROLL_BACKS)
    assert guard.judge(1, math.nan, 1.0, [])[0] == "stop"


@pytest.mark.parametrize(
    ("policy", "verdict"), [("warn", "update"), ("skip", "skip"), ("roll back", "roll back"), ("none", "update")]
)
def test_a_spike_is_seen(policy, verdict):
    guard = Guard("stop", policy, recent=calm())
    decided, said = guard.judge(61, 5.0, 1.0, [1])
    assert decided == verdict
    assert ("spike" in said) == (policy != "none")
    assert guard.judge(62, 2.0, 1.0, [1]) == ("update", "")


def test_a_falling_loss_is_no_spike():
    guard = Guard("stop", "roll back")
    for step in range(300):
        assert guard.judge(step, 10 * 0.98**step + 0.05 * math.sin(step), 1.0, []) == ("update", "")


def test_spike_score_against_the_formula():
    recent = [float(x) for x in range(SPIKE_MIN)]
    middle = (SPIKE_MIN - 1) / 2
    mad = sorted(abs(x - middle) for x in recent)
    spread = 1.4826 * (mad[SPIKE_MIN // 2 - 1] + mad[SPIKE_MIN // 2]) / 2
    assert spike_score(100.0, recent) == pytest.approx((100 - middle) / spread)
    assert spike_score(100.0, recent[:-1]) == 0


def test_patience_target_and_plateau():
    stopper = Stopper.of(Train(patience=2))
    assert [stopper.see(s, loss)[1] == "" for s, loss in enumerate([3.0, 2.0, 2.1, 2.2])] == [True, True, True, False]
    assert (stopper.best, stopper.best_step) == (2.0, 1)
    assert "target" in Stopper.of(Train(target=1.9)).see(5, 1.9)[1]
    stopper = Stopper.of(Train(plateau=0.01))
    assert stopper.see(1, 2.0)[1] == ""
    assert stopper.see(2, 1.9)[1] == ""
    assert "0.01" in stopper.see(3, 1.899)[1]


def test_a_nan_is_never_the_best():
    stopper = Stopper.of(Train())
    assert stopper.see(1, math.nan) == (False, "")
    assert stopper.see(2, 3.0)[0]
