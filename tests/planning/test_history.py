"""Past scorecards: appended by many at once and through crashes, and intervals that they set right."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from danlu.planning import history
from danlu.planning.hardware import Machine
from danlu.planning.history import PRIOR_CASES, Case, append, case_of, quantile, read, recalibrated
from danlu.planning.prediction import Z80, Z95, predict, unknown

HERE = history.machine_key(Machine("cpu", 2, "a processor", 2, 10**9, 10**8, True))
CASE = Case("train_s", "timing", 0.1, 0.2, 0.5, 0.3)


def test_a_line_a_run_and_only_of_this_machine():
    append("a", HERE, [CASE, CASE])
    append("b", "another machine", [CASE])
    append("c", HERE, [CASE])
    assert len(history.place().read_text().splitlines()) == 3
    assert read(HERE) == [CASE] * 3


def test_a_run_scored_again_counts_once():
    append("a", HERE, [CASE])
    later = Case("train_s", "timing", 0.3, 0.2, 1.5, 1.0)
    append("b", HERE, [CASE])
    append("a", HERE, [later])
    assert read(HERE) == [CASE, later]  # the newest last


def test_a_torn_line_costs_only_itself():
    append("a", HERE, [CASE])
    whole = history.place().read_bytes()
    history.place().write_bytes(whole + whole[:40])  # died in the middle of its line
    assert read(HERE) == [CASE]
    append("b", HERE, [CASE])
    assert read(HERE) == [CASE] * 2


@pytest.mark.parametrize(
    "line", ["", "7", "[]", "{}", '{"run": 1, "machine": "%s", "cases": [{"name": "x"}]}', "\x00\xff"]
)
def test_lines_that_are_not_ours_are_passed_over(line):
    append("a", HERE, [CASE])
    with history.place().open("ab") as file:
        file.write(line.replace("%s", HERE).encode("latin-1") + b"\n")
    append("b", HERE, [CASE])
    assert read(HERE) == [CASE] * 2


def test_many_writers_at_once():
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: append(str(i), HERE, [CASE] * 30), range(40)))
    assert len(read(HERE)) == 1200


def test_no_history_and_no_home_are_no_trouble(monkeypatch, tmp_path):
    assert read(HERE) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DANLU_HOME", str(tmp_path / "file"))
    assert read(HERE) == []
    with pytest.raises(OSError, match="file"):
        append("a", HERE, [CASE])


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("DANLU_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert history.place() == tmp_path / "danlu" / "scorecards.jsonl"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history.place() == tmp_path / ".local" / "share" / "danlu" / "scorecards.jsonl"


def test_a_case_keeps_errors_of_the_interval_as_stated():
    stated = predict("train_s", 100.0, "s", "", "timing", factor=1.1)
    case = case_of(stated.widened(3.0, 3.0, 9), 120.0)
    assert case.log_error == pytest.approx(math.log(1.2))
    assert case.half80 == pytest.approx(Z80 * math.log(1.1))
    assert case.miss80 == pytest.approx(math.log(1.2) / (Z80 * math.log(1.1)))
    assert case.miss95 == pytest.approx(math.log(1.2) / (Z95 * math.log(1.1)))
    assert case_of(predict("n_steps", 40, "steps", "", "counted", sd=0), 30) is None
    capped = replace(predict("n_steps", 40, "steps", "", "timing", factor=1.1), high80=40.0, high95=40.0)
    assert case_of(capped, 40).miss80 == 0
    assert case_of(capped, 30).miss80 < -1
    below_zero = case_of(predict("loss", -2.0, "", "", "m", sd=0.1), -1.9)
    assert (below_zero.log_error, below_zero.half80) == (None, None)
    assert below_zero.miss80 == pytest.approx(1 / Z80)


def plain_quantile(misses, level, z):
    """The smallest q by search: past cases at or below it, and the prior's share, reach the level."""
    n = len(misses)
    for q in np.linspace(0, 20, 200_001):
        below = sum(m <= q for m in misses) + PRIOR_CASES * math.erf(q * z / math.sqrt(2))
        if below >= level * (n + PRIOR_CASES + n / (n + PRIOR_CASES)):
            return q
    return math.inf


@pytest.mark.parametrize("n", [1, 2, 9, 30])
def test_the_quantile_is_that_of_its_equation(n):
    misses = np.abs(np.random.default_rng(n).standard_normal(n)) * 2
    for level, z in ((0.8, Z80), (0.95, Z95)):
        assert quantile(list(misses), level, z) == pytest.approx(plain_quantile(misses, level, z), abs=2e-4)


def test_without_a_past_the_interval_stands():
    made = predict("train_s", 100.0, "s", "", "timing", factor=1.1)
    assert recalibrated(made, []) is made
    assert recalibrated(made, [Case("train_s", "another method", 0.0, 0.1, 9.0, 9.0)] * 50) is made
    assert recalibrated(unknown("train_s", "s", "", "timing"), [CASE] * 50).value is None
    assert quantile([], 0.8, Z80) == pytest.approx(1.0, abs=1e-4)
    assert quantile([], 0.95, Z95) == pytest.approx(1.0, abs=1e-4)


def coverage(true_sd: float, n_runs: int, seed: int, shape: float = math.inf) -> tuple[float, float]:
    """Share of outcomes inside the 80 and 95% intervals over the second half of n_runs, each recalibrated by all before;
    the forecaster says sd 0.1, its log errors are Student t of `shape` degrees of freedom and scale true_sd."""
    rng, past, inside = np.random.default_rng(seed), [], []
    for _ in range(n_runs):
        made = recalibrated(predict("loss", 2.0, "", "", "fit", factor=math.exp(0.1)), past)
        error = rng.standard_normal() if shape == math.inf else rng.standard_t(shape)
        outcome = 2.0 * math.exp(true_sd * error)
        inside.append((made.holds(outcome, 80), made.holds(outcome, 95)))
        past.append(case_of(made, outcome))
    late = np.mean(inside[n_runs // 2 :], axis=0)
    return float(late[0]), float(late[1])


@pytest.mark.parametrize(("true_sd", "shape"), [(0.3, math.inf), (0.1, math.inf), (0.03, math.inf), (0.2, 3.0)])
def test_over_and_under_confident_forecasters_end_calibrated(true_sd, shape):
    found = np.mean([coverage(true_sd, 120, seed, shape) for seed in range(20)], axis=0)
    assert found[0] == pytest.approx(0.80, abs=0.05)
    assert found[1] == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize("n", [5, 20])
def test_a_few_past_cases_do_an_honest_forecaster_no_harm(n):
    rng, inside = np.random.default_rng(n), []
    made = predict("loss", 2.0, "", "", "fit", factor=math.exp(0.1))
    for _ in range(400):
        *past, outcome = 2.0 * np.exp(0.1 * rng.standard_normal(n + 1))
        inside.append(recalibrated(made, [case_of(made, x) for x in past]).holds(outcome, 80))
    assert np.mean(inside) == pytest.approx(0.80, abs=0.05)
