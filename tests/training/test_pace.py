"""Under a time budget a run ends cooled, whatever the pace."""

import json
import math

import pytest

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json
from danlu.optim import SCHEDULES
from danlu.parallel.checkpoint import load_newest
from danlu.planning.choices import Choices
from danlu.stages.train import train_steps
from danlu.training.earlier import earlier_runs, steps_made
from danlu.training.extend import extended
from danlu.training.guards import Guard, Stopper
from danlu.training.loop import Loop
from danlu.training.pace import Pace
from danlu.training.state import State

PEAK = 0.1


def paced(seconds, limit=100.0, planned=1000, schedule=None, resumed=None):
    """(rates, state) of a run whose step s takes seconds(s); `resumed`: a step before which the process was replaced."""
    choices = Choices(
        device="cpu", threads=1, precision="fp32", attention="blocks", operations="plain", compile=False, batch=1,
        micro_batch=1, n_steps=planned, model={}, optimizer={"lr": PEAK}, evaluate_every=None, signals_every=None,
        save_every_steps=None, save_every_s=None, time_limit_s=limit,
    )  # fmt: skip
    state, rates = State(Guard("stop", "none"), Stopper(None, None, None)), []
    schedule = schedule or SCHEDULES["wsd"](warmup="10 steps")
    pace, position = Pace(schedule, choices, state), state.position
    times: list[float] = []
    while not pace.is_over and position.elapsed_s + 2 * seconds(position.step) <= (limit or math.inf):
        if position.step == resumed:
            kept, state = state.to_json(), State(Guard("stop", "none"), Stopper(None, None, None))
            state.load(json.loads(json.dumps(kept)))
            pace, position = Pace(schedule, choices, state, times), state.position
        rates.append(pace.lr())
        position.elapsed_s += seconds(position.step)
        position.step += 1
        times.append(position.elapsed_s)
        pace.see(0.0)
    return rates, state


PACES = {
    "as planned": lambda s: 0.1,
    "slower throughout": lambda s: 0.16,
    "faster": lambda s: 0.05,
    "slows down half way": lambda s: 0.1 if s < 400 else 0.2,
    "slows down in the cool-down": lambda s: 0.1 if s < 850 else 0.14,
    "a slow step now and then": lambda s: 0.1 + 2.0 * (s % 97 == 5),
}


@pytest.mark.parametrize("seconds", PACES.values(), ids=PACES)
def test_it_ends_cooled_and_on_time(seconds):
    rates, state = paced(seconds)
    position = state.position
    assert 94 < position.elapsed_s <= 100
    assert position.step == position.n_steps
    assert max(rates) == PEAK
    assert rates[-1] < 0.06 * PEAK
    cooling = len(rates) - position.cools_from
    assert 0.15 < cooling / len(rates) < 0.22
    assert all(rate == PEAK for rate in rates[10 : position.cools_from + 1])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_at_an_even_pace_it_is_the_run_of_that_many_steps():
    rates, state = paced(PACES["slower throughout"])
    schedule, n = SCHEDULES["wsd"](warmup="10 steps"), state.position.n_steps
    assert state.position.cools_from == pytest.approx(schedule.stable_until(n), abs=1)
    assert rates == pytest.approx([schedule.lr_at(s, n, PEAK) for s in range(n)], abs=0.01 * PEAK)


def test_what_was_decided_outlives_the_process():
    whole = paced(PACES["slower throughout"])
    again = paced(PACES["slower throughout"], resumed=whole[1].position.cools_from + 30)
    assert again[1].position.cools_from == whole[1].position.cools_from
    assert again[0] == pytest.approx(whole[0], abs=0.01 * PEAK)


@pytest.mark.parametrize("at", [3, 200, 500, 900, 1500])
@pytest.mark.parametrize("name", ["faster", "slower throughout", "a slow step now and then"])
@pytest.mark.parametrize("decay", ["20%", "50%"])
def test_a_resumed_run_ends_where_the_undisturbed_one_does(name, at, decay):
    schedule = SCHEDULES["wsd"](warmup="10 steps", decay=decay)
    whole, again = (paced(PACES[name], schedule=schedule, resumed=step) for step in (None, at))
    assert again[0] == whole[0]
    assert again[1].position == whole[1].position


def test_a_decay_longer_than_the_run_never_climbs():
    rates, _ = paced(PACES["faster"], planned=100, schedule=SCHEDULES["wsd"](warmup="10 steps", decay="2000 steps"))
    assert min(rates) >= 0
    assert rates[-1] < 0.06 * PEAK


def test_a_constant_rate_is_not_told_to_go_down(tiny_run):
    sections = {"optimizer": {"kind": "adamw", "lr": 3e-3}, "schedule": {"kind": "constant", "warmup": "2 steps"},
                "train": {"length": "1 s", "batch": 16}}  # fmt: skip
    recipe, run = tiny_run(choices={"n_steps": 100_000, "time_limit_s": 1.0, "evaluate_every": 1000}, **sections)
    reports = list(train_steps(recipe, run))
    assert reports[-1].validation is not None
    told = [event for report in reports for event in report.events if "at this pace" in event]
    assert all("training ends there" in event for event in told)


@pytest.mark.parametrize(("each", "n"), [(3.0, 30), (9.0, 10)])
def test_few_long_steps_end_cooled_too(each, n):
    rates, state = paced(lambda s: each, planned=2 * n)
    assert state.position.elapsed_s <= 100
    assert n - 3 <= len(rates) <= n + 3
    assert rates[-1] <= 0.5 * PEAK  # the first of two steps of a cool-down is at the peak


def test_a_schedule_that_needs_its_end_is_left_alone():
    rates, state = paced(lambda s: 0.2, schedule=SCHEDULES["cosine"]())
    assert state.position.n_steps == 0
    cosine = SCHEDULES["cosine"]()
    assert rates == [cosine.lr_at(s, 1000, PEAK) for s in range(len(rates))]


def test_a_run_without_a_time_budget_is_left_alone():
    rates, state = paced(lambda s: 1e-9, limit=None, planned=50)
    assert len(rates) == 50
    assert state.position.n_steps == 0


def test_a_run_that_is_cut_off_says_at_which_rate(tiny_run):
    sections = {
        "optimizer": {"kind": "adamw", "lr": 3e-3},
        "schedule": {"kind": "cosine"},
        "train": {"length": "1 s", "batch": 16},
    }
    recipe, run = tiny_run(choices={"n_steps": 100_000, "time_limit_s": 1.0, "evaluate_every": None}, **sections)
    events = [event for report in train_steps(recipe, run) for event in report.events]
    assert events[-1].startswith("the time budget of 1 s is used up at step")
    assert events[-1].endswith("of the peak rate")


def test_a_real_run_keeps_the_start_of_its_cool_down_and_can_be_extended(tiny_run, tmp_path):
    sections = {"optimizer": {"kind": "adamw", "lr": 3e-3}, "schedule": {"kind": "wsd", "warmup": "2 steps"},
                "train": {"length": "1 s", "batch": 16}}  # fmt: skip
    recipe, run = tiny_run(
        choices={"n_steps": 100_000, "time_limit_s": 1.0, "save_every_steps": 1000, "evaluate_every": 5}, **sections
    )
    run.recipe.write_text(recipe.sparse_toml())
    reports = list(train_steps(recipe, run))
    position = load_newest(run.checkpoints)[0].state["position"]
    assert "that the time budget of 1 s allowed" in position["finished"]
    assert position["n_steps"] == reports[-1].step == reports[-1].n_steps
    assert reports[-1].lr == pytest.approx(3e-3 / (position["n_steps"] - position["cools_from"]), rel=0.3)
    assert any("the rate goes down from here on" in event for report in reports for event in report.events)
    assert (run.checkpoints / f"step-{position['cools_from']:08d}").is_dir()
    wanted = 2 * position["n_steps"]  # longer than what was made, though not than what was planned
    longer_recipe, longer = extended(run, f"{wanted} steps", tmp_path / "longer")
    with Loop(longer_recipe, longer) as loop:
        assert loop.state.position.step == position["cools_from"]
        assert loop.lr() == 3e-3
        assert loop.pace.n_steps == wanted
    with pytest.raises(UserError, match=f"which has {position['n_steps']:,} steps"):
        extended(run, f"{position['n_steps']} steps", tmp_path / "shorter")
    choices = Choices.read(run)
    assert steps_made(run, choices) == position["n_steps"]
    alike = choices.model_copy(update={"n_steps": position["n_steps"]})
    card = DataCard(**read_json(run.data / "card.json"))
    (found,) = earlier_runs(recipe, RunFolder(tmp_path / "another"), alike, card, 0.5)
    assert found.name == run.path.name
