"""plan.json: what was decided and predicted comes back as it was, and a broken one is one sentence."""

from dataclasses import replace

import pytest

from danlu.base.durable import read_json, write_json
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.planning.hardware import Machine
from danlu.planning.ledger import Decision, Plan, read_decisions, read_predictions, write_plan
from danlu.planning.prediction import predict, unknown

MACHINE = Machine("cpu", 2, "a processor", 2, 10**9, 10**8, True)
RATE = Decision(
    "optimizer.lr", 0.003, "prior: step_law", "because", "a paper", "a range", False, 0.001, 0.01,
    if_wrong="a factor of 2 costs 0.4%", evidence={"plot": "points", "points": [[0.001, 2.0], [0.003, 1.9, 0.01]]},
    alternatives=({"value": 0.01, "why": "it diverged"},),
)  # fmt: skip
TIME = predict("train_s", 200.0, "s", "counted", "timing", factor=1.1)
LOSS = unknown("validation_loss", "nats per target", "nothing was measured")


def test_all_of_it_comes_back(tmp_path):
    run = RunFolder.create(tmp_path / "run", "run", "0" * 16)
    bare = Decision("train.batch", 16, "derived", "because", "", "", True)
    timings = {"attention": [{"name": "fused", "seconds": 0.1}]}
    plan = Plan([RATE, bare], [TIME, LOSS], {"batch": 16}, MACHINE, timings, {"n_parameters": 7}, 4.0, "ab")
    assert write_plan(run, plan) == plan
    assert read_decisions(run) == [RATE, bare]
    found = read_json(run.plan)
    assert read_predictions(found) == [TIME, LOSS]
    assert found["choices"] == {"batch": 16}
    assert found["machine"]["cpu"] == "a processor"
    assert found["fingerprint"] == "ab"
    assert found["timings"] == timings
    assert found["facts"] == {"n_parameters": 7}
    assert found["cost"] == {"planning_s": 4.0, "share": 0.02}
    assert {"low", "evidence", "alternatives", "if_wrong"}.isdisjoint(found["decisions"][1])
    assert {"value", "low80", "calibration"}.isdisjoint(found["predictions"][1])


def test_the_share_of_planning_is_left_out_where_the_time_is_unknown(tmp_path):
    run = RunFolder.create(tmp_path / "run", "run", "0" * 16)
    write_plan(run, Plan([], [LOSS], {}, MACHINE, planning_s=4.0))
    assert read_json(run.plan)["cost"] == {"planning_s": 4.0}


def test_a_value_of_zero_or_false_is_kept():
    for value in (0, 0.0, False):
        entry = replace(RATE, value=value, low=0.0).to_json()
        assert entry["value"] is value
        assert entry["low"] == 0.0


@pytest.mark.parametrize(
    "broken", [{}, {"decisions": [{"name": "x"}]}, {"decisions": [{"surprise": 1}]}, {"decisions": 3}]
)
def test_a_broken_plan_is_refused(tmp_path, broken):
    run = RunFolder.create(tmp_path / "run", "run", "0" * 16)
    write_json(run.plan, broken)
    with pytest.raises(UserError, match="is not a plan"):
        read_decisions(run)


def test_a_plan_of_an_older_version_has_no_predictions_with_intervals():
    assert read_predictions({"predictions": {"train_s": 3.0}}) == []
