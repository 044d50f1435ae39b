"""A killed plan goes on where it was."""

import math
from dataclasses import replace

import pytest

from danlu.planning.footprint import OUT_OF_MEMORY, Rehearsal
from danlu.planning.hardware import Rate
from danlu.planning.journal import Journal
from danlu.planning.trials import Look, Outcome, Trial
from tests.planning.test_layouts import choices

OUTCOME = Outcome((3.0, math.nan), (1.0, 2.0), (Look(2, 2.5, ((5.0, 2),), {"loss": 2.5}),), 40.0, 0.2)
REHEARSAL = Rehearsal(steps=(0.1, 0.2), startup_s=1.0, seconds=30.0)


class Lab:
    """Counts what is really measured."""

    def __init__(self, journal):
        self.n, self.told = 0, []
        self.rehearse, self.run_trial = journal.rehearse(self.rehearsed), journal.run_trial(self.tried)

    def rehearsed(self, *asked):
        self.n += 1
        return REHEARSAL

    def tried(self, trial):
        self.n += 1
        return replace(OUTCOME, seconds=40.0 + trial.seed)


def asked(lab, n):
    """The first n measurements of a plan."""
    trial = Trial(choices(optimizer={"lr": 1e-3}))
    steps = [
        lambda: lab.rehearse(choices(), 3, 0.1, True, 10**9),
        lambda: lab.run_trial(trial),
        lambda: lab.run_trial(replace(trial, seed=1)),
    ]
    return [step() for step in steps[:n]]


def test_it_finds_what_was_measured_and_measures_the_rest(tmp_path):
    path = tmp_path / "planning.jsonl"
    first = Lab(Journal(path, "this plan"))
    before = asked(first, 2)
    again = Lab(Journal(path, "this plan"))
    after = asked(again, 3)
    assert (first.n, again.n) == (2, 1)
    assert after[0] == before[0] == REHEARSAL
    assert repr(after[1]) == repr(before[1]) == repr(OUTCOME)
    assert after[2].seconds == 41.0
    other = Lab(Journal(path, "another plan"))
    asked(other, 2)
    assert other.n == 2


def test_its_clock_counts_what_they_took(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("danlu.planning.journal.time.perf_counter", lambda: now[0])

    def slow(trial):
        now[0] += 40.0
        return OUTCOME

    journal = Journal(tmp_path / "planning.jsonl", 0)
    trial = Trial(choices(optimizer={"lr": 1e-3}))
    journal.run_trial(slow)(trial)
    assert journal.left_s(7.0) == 7.0
    again = Journal(tmp_path / "planning.jsonl", 0)
    began = again.clock()
    again.run_trial(slow)(trial)
    assert again.clock() - began == pytest.approx(40.0)
    assert now[0] == 40.0
    assert again.left_s(6.9) == 7.0  # as it was answered then, so that what follows is the same
    assert again.left_s(5.0) == 5.0


def test_a_failed_rehearsal_is_tried_again_and_rates_are_kept(tmp_path):
    path = tmp_path / "planning.jsonl"
    for n in (1, 2):
        found = Journal(path, 0).rehearse(lambda *asked: Rehearsal(trouble=OUT_OF_MEMORY))(choices(), 3, 0.1, True, 1)
        assert found.is_out_of_memory, n
    rate = Rate("fp32", 100.0, 90.0, 110.0, 3)
    assert Journal(path, 0).matmul_rate(lambda: rate) == rate
    assert Journal(path, 0).matmul_rate(lambda: replace(rate, gflops=1.0)) == rate


def test_a_diverged_run_comes_back_as_one(tmp_path):
    lost = Outcome((3.0,), (math.inf,), (Look(1, math.nan, ((math.nan, 2),)),), 1.0, math.nan, "")
    trial = Trial(choices(optimizer={"lr": 1.0}))
    for _ in range(2):
        found = Journal(tmp_path / "planning.jsonl", 0).run_trial(lambda _: lost)(trial)
        assert not math.isfinite(found.loss)
        assert math.isnan(found.step_s)


def test_a_written_plan_leaves_nothing(tmp_path):
    journal = Journal(tmp_path / "planning.jsonl", 0)
    asked(Lab(journal), 2)
    assert journal.path.is_file()
    journal.close()
    assert not journal.path.exists()
    asked(Lab(Journal()), 3)


def test_it_tells_what_is_measured():
    told = []
    asked(Lab(Journal(tell=lambda *what: told.append(what))), 2)
    assert told[0][0] == "rehearsal 1: fp32, micro-batch 64"
    assert told[1][0] == "short run of 100 steps at the rate 0.001"
    assert all(0 < done < of for _, done, of in told)
