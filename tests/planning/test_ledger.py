"""plan.json: what was decided comes back as it was, and a broken one is one sentence."""

from dataclasses import replace

import pytest

from danlu.base.durable import read_json, write_json
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.planning.hardware import Machine
from danlu.planning.ledger import Decision, read_decisions, write_plan

MACHINE = Machine("cpu", 2, "a processor", 2, 10**9, 10**8, True)
RATE = Decision("optimizer.lr", 0.003, "prior: step_law", "because", "a paper", "a range", False, 0.001, 0.01)


def test_decisions_come_back(tmp_path):
    run = RunFolder.create(tmp_path / "run", "run", "0" * 16)
    bare = replace(RATE, name="train.batch", value=16, low=None, high=None)
    write_plan(
        run,
        [RATE, bare],
        {"attention": [{"name": "fused", "seconds": 0.1}]},
        {"train_s": 3.0},
        {"batch": 16},
        MACHINE,
        "ab",
    )
    assert read_decisions(run) == [RATE, bare]
    found = read_json(run.plan)
    assert found["choices"] == {"batch": 16}
    assert found["machine"]["cpu"] == "a processor"
    assert found["fingerprint"] == "ab"
    assert "low" not in found["decisions"][1]


@pytest.mark.parametrize(
    "broken", [{}, {"decisions": [{"name": "x"}]}, {"decisions": [{"surprise": 1}]}, {"decisions": 3}]
)
def test_a_broken_plan_is_refused(tmp_path, broken):
    run = RunFolder.create(tmp_path / "run", "run", "0" * 16)
    write_json(run.plan, broken)
    with pytest.raises(UserError, match="is not a plan"):
        read_decisions(run)
