"""Guards decide before the update, remember across a resume, and name the numbers they rest on."""

import dataclasses
import json
import math

import numpy as np
import pytest

from danlu.sections import Train
from danlu.training.guards import MAX_ROLL_BACKS, SPIKE_MIN, Guard, Stopper, excess_score, spike_score


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


def plain_score(best, now):
    """Difference of the losses over its standard error, from the pieces' own differences."""
    n = np.array([b for _, b in now], float)
    differences = np.array([a for a, _ in now]) - np.array([a for a, _ in best])
    mean = differences.sum() / n.sum()
    residuals = differences - mean * n
    return mean / (math.sqrt((residuals**2).sum() * len(n) / (len(n) - 1)) / n.sum())


def test_patience_of_auto_stops_where_chance_does_not_explain():
    rng = np.random.default_rng(0)
    hard = rng.normal(2.0, 0.5, 32)  # what makes a piece hard is the same at every look

    def look(loss, noise=0.01):
        return [(float(100 * (h + loss - 2 + rng.normal(0, noise))), 100) for h in hard]

    best, now = look(2.0), look(2.01)
    assert excess_score(best, now) == pytest.approx(plain_score(best, now), rel=0.1)
    assert excess_score(best, now[:-1]) == excess_score(best[:3], now[:3]) == 0.0
    stopper = Stopper.of(Train(patience="auto"))
    for step in range(40):  # noise alone does not stop it
        pieces = look(2.0)
        is_best, why = stopper.see(step, sum(a for a, _ in pieces) / 3200, pieces)
        assert not why
    stopped = []
    for step in range(40, 50):
        pieces = look(2.05)
        is_best, why = stopper.see(step, sum(a for a, _ in pieces) / 3200, pieces)
        stopped.append(bool(why))
        assert not is_best
    assert stopped[:3] == [False, False, True]
    again = Stopper.of(Train(patience="auto"))  # a resume goes on with what a checkpoint holds
    saved = json.loads(json.dumps(dataclasses.asdict(stopper)))
    again.best, again.best_pieces, again.n_worse = saved["best"], saved["best_pieces"], 2
    assert again.see(50, 2.05, look(2.05))[1]


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
