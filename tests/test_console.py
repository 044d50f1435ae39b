"""The screens: a plan fits one, whatever it holds, and the end of a run shows what was predicted."""

import pytest

from danlu.base.durable import read_json, write_json
from danlu.console import plan_lines, show_plan, show_run
from danlu.pipeline import Run
from danlu.planning.hardware import Machine
from danlu.planning.ledger import Decision, Plan, write_plan
from danlu.planning.prediction import predict, unknown
from danlu.planning.scorecard import write_scorecard
from danlu.stages.train import train_steps

MACHINE = Machine("cpu", 2, "a processor", 2, 10**9, 10**8, True)
RATE = Decision(
    "optimizer.lr", 0.003, "measured", "five short runs, a parabola through them" * 9, "a paper", "a range", True, 0.002, 0.005,
    if_wrong="twice or half of it costs about 0.4% of the loss",
)  # fmt: skip
LAW = Decision("train.batch", 16, "prior: step_law", "0.58 D^0.571\ngives 16", "a paper", "D above 1e8", False, 8, 32)
COMPUTED = Decision("train.n_steps", 12, "derived", "12 steps", "", "", True)
PREDICTED = [
    predict("train_s", 200.0, "s", "counted", "timing", factor=1.1),
    predict("n_steps", 12, "steps", "given", "counted", sd=0),
    unknown("validation_loss", "nats per target", "nothing was trained"),
]


@pytest.fixture
def planned(tiny_run):
    """make(decisions, predictions) -> a Run with that plan."""

    def make(decisions, predictions=PREDICTED):
        recipe, run = tiny_run()
        write_plan(run, Plan(decisions, predictions, read_json(run.plan)["choices"], MACHINE, planning_s=4.0))
        return Run(run, recipe)

    return make


def test_one_screen_says_value_interval_origin_cost(planned, capsys):
    show_plan(planned([RATE, LAW, COMPUTED]))
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("0.003 0.002 to 0.005 measured", "if wrong: twice or half of it costs about 0.4% of the loss",
                  "prior: step_law, outside its range", "0.58 D^0.571", "derived: 12 steps",
                  "training time 3 min 20 s 2 min 57 s to 3 min 46 s", "exact", "don't know nothing was trained",
                  "Planning took 4.0 s, 2.0% of the predicted training time."):  # fmt: skip
        assert words in shown, words


def test_why_nothing_was_measured_is_not_cut_off(planned):
    law = Decision(
        "optimizer.lr",
        0.01,
        "prior: step_law",
        "numbers " * 30 + "Not measured: 0 s of plan.budget are left.",
        "",
        "",
        True,
    )
    (line,) = [line for line in plan_lines(planned([law])) if "not measured" in line]
    assert "not measured: 0 s of plan.budget are left. numbers" in line


@pytest.mark.parametrize("n", [1, 5, 8, 12, 40, 200])
@pytest.mark.parametrize("n_predicted", [0, 3, 30])
def test_it_always_fits(planned, n, n_predicted):
    decisions = [RATE, *[LAW] * (n // 2), *[COMPUTED] * n]
    lines = plan_lines(planned(decisions, (PREDICTED * 10)[:n_predicted]))
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("optimizer.lr") for line in lines)
    is_all = sum(line.startswith(("optimizer.lr", "train.batch", "train.n_steps")) for line in lines) == len(decisions)
    assert is_all != any("more: " in line for line in lines)


def test_a_plan_of_an_older_version_is_shown(planned):
    made = planned([LAW])
    plan = read_json(made.folder.plan)
    write_json(made.folder.plan, {k: v for k, v in plan.items() if k != "cost"} | {"predictions": {"train_s": 3.0}})
    assert "train.batch" in "\n".join(plan_lines(made))


def test_the_end_of_a_run_shows_predictions_and_outcomes(planned, capsys):
    made = planned([RATE])
    list(train_steps(made.recipe, made.folder))
    write_scorecard(made.folder, {})
    show_run(made)
    shown = capsys.readouterr().out
    assert "Predicted and measured" in shown
    assert "training time" in shown
    assert "validation loss" not in shown  # nobody knew
