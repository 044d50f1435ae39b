"""Layouts: what does not fit is cut, then recomputed, then refused; the batch of the update never changes."""

import math
import random

import pytest

from danlu.base.errors import UserError
from danlu.planning.choices import Choices
from danlu.planning.duration import whole_run
from danlu.planning.footprint import OUT_OF_MEMORY, Rehearsal
from danlu.planning.layouts import Bench, expected, halves

MB = 2**20


def choices(**changed):
    settled = {
        "device": "cpu", "threads": 1, "precision": "fp32", "operations": "plain", "attention": "blocks",
        "compile": False, "batch": 64, "micro_batch": 64, "n_steps": 100, "model": {}, "optimizer": {"lr": 1e-3},
        "evaluate_every": 30, "signals_every": 10, "save_every_steps": None, "save_every_s": 120.0,
    }  # fmt: skip
    return Choices(**settled | changed)


class Machine:
    """Rehearsals on a made-up machine: memory is fixed + slope m, and the ceiling is kept."""

    def __init__(self, fixed, slope, noise=0.0, seed=0, busy=0.0):
        self.fixed, self.slope, self.noise, self.busy = fixed, slope, noise, busy
        self.random, self.asked = random.Random(seed), []

    def own(self, choices):
        """True peak."""
        return self.fixed + self.slope * choices.micro_batch * (0.3 if choices.recompute else 1.0)

    def __call__(self, choices, n_steps, at_least_s, is_whole, ceiling):
        self.asked.append(choices)
        own = int(self.own(choices) * (1 - self.noise * self.random.random()))
        if ceiling is not None and own > ceiling:
            return Rehearsal(trouble=OUT_OF_MEMORY)
        more = {"look_s": 0.5, "stall_s": 0.01, "closing_s": 0.05, "watch_s": 0.02} if is_whole else {}
        return Rehearsal(
            steps=(0.1, 0.12, 0.11), startup_s=1.0, first_s=0.3, steps_bytes=own, peak_bytes=own, busy=self.busy, **more
        )  # fmt: skip


def test_a_layout_that_fits_is_kept_after_one_rehearsal():
    machine = Machine(50 * MB, MB)
    bench = Bench(machine, 1000 * MB)
    assert bench.fitted(choices()) == (choices(), "")
    assert bench.time_steps(choices(), 3, 0.1) == [0.1, 0.12, 0.11]
    assert len(machine.asked) == 1


def test_what_does_not_fit_is_cut_and_the_batch_stays():
    bench = Bench(Machine(50 * MB, 10 * MB), 300 * MB)
    found, why = bench.fitted(choices())
    assert found.micro_batch == 16
    assert found.batch == 64
    assert "micro-batch of 64" in why
    assert math.isinf(bench.time_steps(choices(micro_batch=32), 3, 0.1)[0])


def test_blocks_are_recomputed_only_where_no_micro_batch_fits():
    bench = Bench(Machine(50 * MB, 200 * MB), 200 * MB)
    found, why = bench.fitted(choices(), may_recompute=True)
    assert (found.micro_batch, found.recompute) == (1, True)
    assert "recomputed" in why
    with pytest.raises(UserError, match="does not fit"):
        Bench(Machine(50 * MB, 200 * MB), 200 * MB).fitted(choices())
    with pytest.raises(UserError, match="does not fit"):
        Bench(Machine(50 * MB, 10 * MB), 300 * MB).fitted(choices(), is_open=False)


def test_a_crash_that_is_not_memory_is_told():
    with pytest.raises(UserError, match="no such kernel"):
        Bench(lambda *_: Rehearsal(trouble="no such kernel"), 10**9).fitted(choices())


def test_two_hundred_layouts_under_random_ceilings_never_go_over():
    draw, n_fitted = random.Random(1), 0
    for case in range(200):
        machine = Machine(draw.uniform(10, 100) * MB, draw.uniform(0.1, 20) * MB, noise=0.03, seed=case)
        ceiling = int(draw.uniform(60, 1500) * MB)
        try:
            found, _ = Bench(machine, ceiling).fitted(choices(batch=256, micro_batch=256), may_recompute=True)
        except UserError:
            continue
        n_fitted += 1
        assert machine.own(found) <= ceiling
        assert found.batch == 256
    assert n_fitted > 150


def test_the_whole_run_is_the_sum_of_its_parts():
    found = Machine(0, 0)(choices(), 3, 0.1, True, None)
    time = whole_run(choices(), found, 1)
    assert time.startup == 1.0
    assert time.steps == pytest.approx(0.3 + 99 * 0.11)
    assert time.watching == pytest.approx(11 * 0.02)
    assert time.looks == pytest.approx(4 * 0.5)
    assert time.closing == 0.05
    assert time.total == pytest.approx(1.0 + 0.3 + 99 * 0.11 + 0.22 + 2.0 + time.checkpoints + 0.05)
    assert whole_run(choices(evaluate_every=None, save_every_s=None), found, 1).checkpoints == 0


def test_a_busy_machine_widens_the_interval():
    widths = []
    for busy in (0.0, 0.5):
        bench = Bench(Machine(50 * MB, MB, busy=busy))
        bench.of(choices(), is_whole=True)
        whole = {p.name: p for p in expected(choices(), bench, 2)}["train_s"]
        widths.append(whole.high95 / whole.low95)
    assert widths[1] > 1.2 * widths[0]


def test_a_time_budget_bounds_what_is_predicted():
    found, bench = choices(time_limit_s=8.0), Bench(Machine(50 * MB, MB))
    bench.of(choices(), is_whole=True)
    for is_paced in (False, True):
        whole = {p.name: p for p in expected(found, bench, 2, is_paced)}["train_s"]
        beside = 1.0 + 0.05
        assert whole.low80 <= whole.value <= whole.high80 <= 8.0 + beside
        assert whole.value > 7.8 + beside
        assert (whole.origin == "time budget") == is_paced


def test_halves_end_with_one():
    assert halves(12) == [12, 6, 3, 2, 1]
    assert halves(1) == [1]
