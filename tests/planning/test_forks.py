"""When a run makes forks of itself: where they lie, what they may cost, and the reason when there are none."""

from types import SimpleNamespace

import pytest

from danlu.base.errors import UserError
from danlu.optim import SCHEDULES
from danlu.planning.forks import forks_until, with_forks
from danlu.sections import Plan


class Draft:
    """What with_forks reads of a draft."""

    def __init__(self, forecast="auto", schedule="wsd", n_validation=100):
        self.recipe = SimpleNamespace(plan=Plan(forecast=forecast), schedule=SCHEDULES[schedule]())
        self.n_validation, self.said = n_validation, []

    def derive(self, name, value, why):
        self.said.append((name, value, why))


class Choices(SimpleNamespace):
    def model_copy(self, update):
        return Choices(**vars(self) | update)


def planned(draft, n_steps=1000, step_s=0.1, look_s=0.1, every=50):
    return with_forks(draft, Choices(n_steps=n_steps, evaluate_every=every, forks=()), step_s, look_s)


def test_forks_end_at_half_and_at_all_of_the_forecast():
    assert forks_until(100) == ((45, 5), (90, 10))
    assert planned(Draft()).forks == ((45, 5), (90, 10))
    assert planned(Draft("60 steps")).forks == ((27, 3), (54, 6))


def test_the_cost_is_stated_and_bounded():
    draft = Draft()
    planned(draft)
    assert draft.said == [("plan.forecast", "100 steps", draft.said[0][2])]
    assert "1.8% of the run" in draft.said[0][2]
    dear = Draft()
    assert planned(dear, look_s=2.0).forks == ()
    assert "7.5% of the run, more than 3%" in dear.said[0][2]
    assert planned(Draft("10%"), look_s=2.0).forks == ((45, 5), (90, 10))


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        (Draft(n_validation=0), "no validation split"),
        (Draft(schedule="constant"), "does not cool down"),
        (Draft(schedule="inverse_sqrt"), "not near its peak"),
        (Draft(schedule="one_cycle"), "not near its peak"),
    ],
)
def test_no_forecast_says_why(draft, said):
    assert planned(draft).forks == ()
    assert said in draft.said[0][2]


def test_short_runs_have_none_and_cosines_have():
    draft = Draft()
    assert planned(draft, n_steps=150).forks == ()
    assert "only 15 steps" in draft.said[0][2]
    assert planned(Draft(schedule="cosine")).forks


def test_one_that_was_asked_for_and_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"plan\.forecast cannot be made: training looks at no validation split"):
        planned(Draft("10%", n_validation=0))
    assert planned(Draft("never", n_validation=0)).forks == ()
