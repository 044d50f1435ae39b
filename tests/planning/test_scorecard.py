"""The scorecard of a real tiny training: outcomes as measured, a changed plan told, the history taught once."""

import json

import numpy as np
import pytest
import torch

from danlu.base.durable import read_json, write_json
from danlu.base.errors import UserError
from danlu.planning import history
from danlu.planning.hardware import Machine
from danlu.planning.ledger import Plan, write_plan
from danlu.planning.prediction import predict, unknown
from danlu.planning.scorecard import Score, write_scorecard
from danlu.stages.train import train_steps
from danlu.training.state import Position
from danlu.training.usage import Usage, peak_bytes, reset_peak

MACHINE = Machine("cpu", 2, "a processor", 2, 10**9, 10**8, True)
KEY = history.machine_key(MACHINE)
PREDICTED = [
    predict("train_s", 1e4, "s", "far too long", "timing", factor=1.1),
    predict("n_steps", 12, "steps", "as given", "counted", sd=0),
    predict("validation_loss", 2.5, "nats", "guessed", "fit", sd=1.0),
    predict("peak_bytes", 4e8, "bytes", "guessed", "counted", factor=2.0),
    predict("accuracy", 0.5, "", "guessed", "fit", sd=0.1),
    unknown("step_s", "s", "not timed"),
]


@pytest.fixture
def planned(tiny_run):
    """A tiny run whose plan.json predicts."""
    recipe, run = tiny_run()
    choices = read_json(run.plan)["choices"]
    write_plan(run, Plan([], PREDICTED, choices, MACHINE))
    return recipe, run


def scores_of(run, metrics=None):
    write_scorecard(run, metrics or {})
    card = read_json(run.evaluate / "scorecard.json")
    return {s["name"]: s for s in card["scores"] if s["made"] == "before training"}, card


def rows(run):
    return [json.loads(line) for line in (run.train / "metrics.jsonl").read_text().splitlines()]


def test_each_prediction_is_held_against_what_came(planned):
    recipe, run = planned
    reports = list(train_steps(recipe, run))
    found, card = scores_of(run, {"accuracy": 0.9})
    assert card["notes"] == []
    assert card["finished"] == "all 12 steps are done"
    assert found["n_steps"]["outcome"] == 12
    assert (found["n_steps"]["error"], found["n_steps"]["inside80"], found["n_steps"]["inside95"]) == (0.0, True, True)
    assert found["validation_loss"]["outcome"] == reports[-1].validation["loss"]
    assert found["validation_loss"]["inside80"]
    took = found["train_s"]["outcome"]
    assert reports[-1].elapsed_s < took < 60
    assert found["train_s"]["error"] == pytest.approx(took / 1e4 - 1)
    assert not found["train_s"]["inside95"]
    assert found["accuracy"]["error"] == pytest.approx(0.8)
    assert found["step_s"]["outcome"] > 0
    assert "inside80" not in found["step_s"]
    assert 1e7 < found["peak_bytes"]["outcome"] < 1e11


def test_the_next_plan_learns_from_it_once(planned):
    recipe, run = planned
    list(train_steps(recipe, run))
    for _ in range(2):
        scores_of(run, {"accuracy": 0.9})
    cases = history.read(KEY)
    assert sorted(case.name for case in cases) == ["accuracy", "peak_bytes", "train_s", "validation_loss"]
    later = write_plan(run, Plan([], PREDICTED, {}, MACHINE))
    wide = next(p for p in later.predictions if p.name == "train_s")
    assert wide.low80 < PREDICTED[0].low80
    assert wide.calibration["n"] == 1


def test_usage_is_kept_through_a_stop(planned):
    recipe, run = planned
    for report in train_steps(recipe, run):
        if report.step == 5:
            break
    first = read_json(run.train / "usage.json")
    assert first["finished"] == ""
    found, card = scores_of(run)
    assert card["notes"] == ["The run is not finished: only its step and its memory are scored."]
    assert "outcome" not in found["train_s"]
    assert found["peak_bytes"]["outcome"] == first["peak_bytes"]
    assert history.read(KEY) == []
    list(train_steps(recipe, run))
    second = read_json(run.train / "usage.json")
    assert second["startup_s"] > first["startup_s"] > 0
    assert second["peak_bytes"] >= first["peak_bytes"]
    assert second["train_s"] == pytest.approx(second["startup_s"] + second["elapsed_s"] + second["closing_s"])
    assert second["elapsed_s"] == pytest.approx(rows(run)[-1]["elapsed_s"], abs=1e-3)
    list(train_steps(recipe, run))  # finished: nothing is counted again
    assert read_json(run.train / "usage.json") == second


def test_what_earlier_processes_used_is_added_to(planned):
    _, run = planned
    position = Position(startup_s=5.0, peak_bytes=10**15, elapsed_s=7.0)
    usage = Usage(run, torch.device("cpu"))
    usage.start(position)
    usage.close(position, 1.0)
    found = read_json(run.train / "usage.json")
    assert 5.0 < found["startup_s"] < 65.0
    assert found["peak_bytes"] == 10**15
    assert found["train_s"] == pytest.approx(found["startup_s"] + 8.0)


def test_peak_memory_is_that_since_the_reset():
    assert reset_peak(torch.device("cpu"))
    before = peak_bytes(torch.device("cpu"))
    np.ones(20_000_000)  # 160 MB, written to and let go
    assert peak_bytes(torch.device("cpu")) > before + 120e6
    assert reset_peak(torch.device("cpu"))
    assert peak_bytes(torch.device("cpu")) < before + 80e6


def test_a_plan_that_was_changed_is_told_and_teaches_nothing(planned):
    recipe, run = planned
    list(train_steps(recipe, run))
    assert run.verify() == []
    plan = read_json(run.plan)
    plan["predictions"][0]["value"] = 0.3
    write_json(run.plan, plan)
    _, card = scores_of(run)
    assert card["notes"] == ["plan.json was changed after it was hashed: its predictions prove nothing."]
    assert history.read(KEY) == []
    assert run.verify() == ["plan.json is not what it was when the run was committed to it."]


def test_a_plan_hashed_late_is_told(planned):
    recipe, run = planned
    for report in train_steps(recipe, run):
        if report.step == 5:
            break
    manifest = read_json(run.manifest)
    del manifest["committed"]
    write_json(run.manifest, manifest)
    list(train_steps(recipe, run))
    _, card = scores_of(run)
    assert card["notes"] == ["plan.json was hashed only at step 5: its predictions prove little."]


def test_a_forecast_is_scored_beside_the_plan(planned):
    recipe, run = planned
    list(train_steps(recipe, run))
    forecast = {"step": 6, "predictions": [predict("validation_loss", 2.4, "nats", "a fork", "fork", sd=0.5).to_json()]}
    write_json(run.train / "forecast.json", forecast)
    _, card = scores_of(run)
    assert card["notes"] == ["train/forecast.json was not hashed when it was made: its predictions prove nothing."]
    run.commit(run.train / "forecast.json", 6)
    _, card = scores_of(run)
    assert card["notes"] == []
    later = [s for s in card["scores"] if s["made"] == "at step 6"]
    assert [s["name"] for s in later] == ["validation_loss"]
    assert "inside80" in later[0]
    assert {(c.name, c.method) for c in history.read(KEY)} >= {("validation_loss", "fork"), ("validation_loss", "fit")}


def test_predictions_that_cannot_be_read_are_one_sentence(planned):
    recipe, run = planned
    list(train_steps(recipe, run))
    write_json(run.train / "forecast.json", {"step": 6, "predictions": [{"surprise": 1}]})
    with pytest.raises(UserError, match=r"forecast.json.*holds predictions that cannot be read"):
        write_scorecard(run, {})


def test_a_history_that_cannot_be_written_is_told(planned, monkeypatch, tmp_path):
    recipe, run = planned
    list(train_steps(recipe, run))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DANLU_HOME", str(tmp_path / "file"))
    _, card = scores_of(run)
    assert "the next plans do not learn from this run" in card["notes"][0]


def test_a_run_of_an_older_version_is_scored_as_far_as_it_goes(tiny_run):
    recipe, run = tiny_run()
    list(train_steps(recipe, run))
    (run.train / "usage.json").unlink()
    found, card = scores_of(run)
    assert (found, card["finished"]) == ({}, "")


def test_an_error_below_zero_is_a_difference():
    entry = Score(predict("validation_loss", -2.0, "", "", "fit", sd=0.5), "before training", -1.5).to_json()
    assert (entry["error"], entry["is_relative"], entry["inside80"]) == (0.5, False, True)
