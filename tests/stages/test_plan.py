"""Plan: every auto is answered with a reason, timings decide, and all of it is written before training."""

import json
import math

import pytest

from danlu.base.errors import UserError
from danlu.planning.choices import Choices
from danlu.planning.trials import Lab, Outcome
from danlu.stages.plan import plan
from danlu.stages.train import train_steps


def stopwatch(seconds_of):
    """A time_steps whose machine takes seconds_of(choices) a step."""
    asked = []

    def time_steps(choices, n_steps, at_least_s):
        asked.append(choices)
        return [seconds_of(choices)] * n_steps

    return time_steps, asked


def short_run(trial):
    """A short run whose loss is lowest at a rate of 0.01."""
    n, rate = trial.choices.n_steps, trial.choices.optimizer["lr"]
    end = 5.0 - 3.0 * math.exp(-(math.log(rate / 0.01) ** 2) / (2 * 2.2**2))
    return Outcome((5.0,) * (n // 2) + (end,) * (n - n // 2), (1.0,) * n, (), 0.01, 0.001)


def planned(tiny_run, seconds_of=lambda c: 0.01, **sections):
    sections = {"train": {"length": "40 steps"}} | sections
    recipe, run = tiny_run(**sections)
    run.plan.unlink()
    time_steps, asked = stopwatch(seconds_of)
    choices = plan(recipe, run, lambda *_: None, Lab(time_steps, short_run))
    return recipe, run, choices, json.loads(run.plan.read_text()), asked


def test_everything_is_answered_with_a_reason_and_written(tiny_run):
    recipe, run, choices, written, _ = planned(tiny_run)
    assert Choices.read(run) == choices
    names = [d["name"] for d in written["decisions"]]
    assert {"optimizer.lr", "optimizer.weight_decay", "train.batch", "train.micro_batch", "model.attention"} <= set(
        names
    )
    assert len(names) == len(set(names))
    assert all(d["why"] and d["origin"] for d in written["decisions"])
    predicted = {p["name"]: p for p in written["predictions"]}
    assert predicted["train_s"]["value"] == pytest.approx(0.4)
    assert predicted["n_steps"]["low80"] == predicted["n_steps"]["high95"] == 40
    assert "value" not in predicted["validation_loss"]
    assert written["cost"]["planning_s"] > 0
    assert written["machine"]["threads"] >= 1
    assert len([r.loss for r in train_steps(recipe, run)]) == 40


def test_the_fastest_wins_and_noise_moves_nothing(tiny_run):
    def seconds_of(choices):
        fast = 0.5 if choices.attention == "fused" else 1.0
        return 0.01 * fast * (0.99 if choices.precision == "fp32" else 1.0)

    _, _, choices, written, _ = planned(tiny_run, seconds_of)
    assert choices.attention == "fused"
    start = written["timings"].get("precision")
    assert start is None or choices.precision == start[0]["name"]


def test_what_is_given_is_not_touched(tiny_run):
    train = {"length": "40 steps", "batch": 6, "micro_batch": 4, "precision": "fp32", "compile": False}
    optimizer = {"kind": "adamw", "lr": 0.002, "weight_decay": 0.3}
    _, _, choices, written, asked = planned(tiny_run, train=train, optimizer=optimizer)
    assert (choices.batch, choices.micro_batch, choices.precision) == (6, 4, "fp32")
    assert choices.optimizer == {"lr": 0.002, "weight_decay": 0.3}
    assert {c.batch for c in asked} == {6}
    assert not {"optimizer.lr", "train.batch"} & {d["name"] for d in written["decisions"]}


def test_what_is_given_is_no_decision_and_stands_as_given_in_the_full_recipe(tiny_run):
    sections = {
        "train": {"length": "400 steps", "batch": 6},
        "evaluate": {"every": "2 epochs"},
        "plan": {"forecast": "10%"},
    }
    recipe, _, choices, written, _ = planned(tiny_run, **sections)
    assert (choices.evaluate_every, len(choices.forks)) == (84, 2)
    assert not {"train.batch", "evaluate.every", "plan.forecast"} & {d["name"] for d in written["decisions"]}
    full = recipe.full_toml(written["decisions"])
    for line in ("batch = 6", 'every = "2 epochs"', 'forecast = "10%"'):
        assert f"{line}  # given" in full


def test_a_time_becomes_steps_and_a_hard_limit(tiny_run):
    _, _, choices, _, _ = planned(
        tiny_run, lambda c: 0.02, train={"length": "60 s", "batch": 8}, evaluate={"every": "never"}
    )
    assert choices.time_limit_s == 60
    assert choices.n_steps == int(0.92 * 60 / 0.02)
    assert choices.evaluate_every is None


def test_steps_are_certain_capped_or_unknown(tiny_run):
    def steps_of(schedule="wsd", **train):
        sections = {"train": {"batch": 8} | train, "schedule": {"kind": schedule}}
        _, _, choices, written, _ = planned(tiny_run, lambda c: 0.02, **sections)
        told = {p["name"]: p for p in written["predictions"]}
        assert train["length"] != "60 s" or told["train_s"]["high80"] <= 60
        return choices.n_steps, told["n_steps"]

    n, capped = steps_of("cosine", length="60 s")
    assert capped["low80"] < capped["value"] == capped["high95"] == n
    n, paced = steps_of(length="60 s")
    assert paced["low80"] < paced["value"] == n < paced["high80"]
    _, open_end = steps_of(length="40 steps", patience=3)
    assert "value" not in open_end
    assert "patience" in open_end["why"]


def test_the_budget_bounds_the_timings(tiny_run, monkeypatch):
    clock = iter(range(0, 10_000, 9))
    monkeypatch.setattr("danlu.planning.journal.time.perf_counter", lambda: float(next(clock)))
    _, _, _, written, asked = planned(tiny_run, plan={"budget": "1 s"})
    assert any("want of plan.budget" in d["why"] for d in written["decisions"])
    assert len(asked) <= 3


def test_compile_is_tried_only_where_it_can_pay(tiny_run):
    slow = {"length": "10 h", "batch": 8}
    _, _, choices, written, _ = planned(tiny_run, lambda c: 0.1 if c.compile else 0.3, train=slow)
    assert choices.compile is True
    assert "compile" in written["timings"]
    _, _, choices, written, _ = planned(
        tiny_run, lambda c: 0.1 if c.compile else 0.3, train={"length": "10 s", "batch": 8}
    )
    assert choices.compile is False
    assert "compile" not in written["timings"]


def test_intervals_in_all_units(tiny_run):
    _, _, choices, _, _ = planned(
        tiny_run,
        lambda c: 0.5,
        train={"length": "1000 steps", "batch": 10, "signals": 7},
        evaluate={"every": "50 s"},
        checkpoint={"save_every": "1 epochs"},
    )
    assert (choices.signals_every, choices.evaluate_every) == (7, 100)
    assert choices.save_every_steps == 25  # 4,000 tokens of 16, 10 samples a step
    assert choices.save_every_s is None


def test_too_little_data_is_refused(tiny_run):
    with pytest.raises(UserError, match="at least 5001 training tokens"):
        planned(tiny_run, model={"n_layers": 1, "width": 32, "context": 5000})


def test_a_size_of_auto_follows_budget_and_data(tiny_run):
    _, _, choices, written, _ = planned(tiny_run, model={"context": 16})
    assert any(d["name"] == "model.size" for d in written["decisions"])
    assert choices.model["width"] >= 8


def test_a_beta2_of_auto_is_answered_and_one_that_is_given_is_not_touched(tiny_run):
    train = {"length": "60 steps", "batch": 16}
    recipe, run, choices, _, asked = planned(tiny_run, optimizer={"kind": "adamw", "beta2": "auto"}, train=train)
    assert choices.optimizer["beta2"] == pytest.approx(0.9)  # 2^(-30 / 60) is below its range
    assert asked[0].optimizer["beta2"] == 0.95
    assert len(list(train_steps(recipe, run))) == 60
    *_, choices, _, _ = planned(tiny_run, train=train)
    assert "beta2" not in choices.optimizer


def rate_decision(written):
    return next(d for d in written["decisions"] if d["name"] == "optimizer.lr")


def test_the_rate_is_measured_where_that_pays_and_else_the_reason_is_said(tiny_run):
    long = {"train": {"length": "20000 steps", "batch": 16}}
    _, _, choices, written, _ = planned(tiny_run, lambda c: 1.0, **long)
    found = rate_decision(written)
    assert found["origin"] == "measured: short runs"
    assert choices.optimizer["lr"] == found["value"] == pytest.approx(0.01, rel=0.5)
    assert found["evidence"]["plot"] == "points"
    assert len(found["alternatives"]) >= 3
    _, _, _, written, asked = planned(tiny_run, lambda c: 1.0, **long, plan={"budget": "prior"})
    assert 'plan.budget is "prior"' in rate_decision(written)["why"]
    assert len(asked) == 1
    _, _, _, written, _ = planned(tiny_run)
    assert "too little for" in rate_decision(written)["why"]
    _, _, choices, written, _ = planned(tiny_run, lambda c: 1.0, **long, optimizer={"kind": "adamw", "lr": 0.002})
    assert choices.optimizer["lr"] == 0.002
    assert "optimizer.lr" not in [d["name"] for d in written["decisions"]]


def test_an_earlier_runs_rate_is_carried_over(tiny_run, tmp_path):
    """At 0.02, far above the law's rate: the new run's comes out between them, and says from where."""
    recipe, run = tiny_run("small", choices={"optimizer": {"lr": 0.02, "weight_decay": 0.0}})
    run.recipe.write_text(recipe.sparse_toml())
    alone = planned(tiny_run)[2].optimizer["lr"]
    _, _, choices, written, _ = planned(tiny_run, plan={"proxy": str(run.path)})
    (decided,) = [d for d in written["decisions"] if d["name"] == "optimizer.lr"]
    assert alone < choices.optimizer["lr"] == decided["value"] < 0.02
    assert f"{run.path} ran at 0.02" in decided["why"]


@pytest.mark.parametrize(
    ("sections", "decided", "said"),
    [
        (
            {"optimizer": {"kind": "muon"}},
            "",
            r"plan\.proxy must be a run with this optimizer\.kind, muon\. Got \"adamw\"",
        ),
        ({"optimizer": {"kind": "adamw", "lr": 0.01}}, "", r"plan\.proxy needs optimizer\.lr = \"auto\""),
        ({"plan": {"proxy": "~nobody/run"}}, "", r"plan\.proxy must be the folder of an earlier run"),
        (
            {},
            "prior: step_law",
            r"plan\.proxy must be a run whose rate was measured or given\. Got \"prior: step_law\"",
        ),
        ({"plan": {"proxy": "nowhere"}}, "", r"plan\.proxy must be the folder of an earlier run"),
    ],
)
def test_a_proxy_that_cannot_serve_is_refused(tiny_run, sections, decided, said):
    recipe, run = tiny_run("small")
    run.recipe.write_text(recipe.sparse_toml())
    if decided:
        plan_json = json.loads(run.plan.read_text())
        entry = {
            "name": "optimizer.lr",
            "value": 1e-3,
            "origin": decided,
            "why": "",
            "source": "",
            "valid": "",
            "in_range": True,
        }
        run.plan.write_text(json.dumps(plan_json | {"decisions": [entry]}))
    with pytest.raises(UserError, match=said):
        planned(tiny_run, **{"plan": {"proxy": str(run.path)}} | sections)


def test_what_was_added_later_leaves_older_fingerprints_alone(tiny_run):
    """A run planned before `look_share` was there is resumed by the same fingerprint."""
    from danlu.base.durable import fingerprint

    _, run = tiny_run()
    choices = Choices.read(run)
    assert "look_share" not in choices.model_dump(mode="json")
    assert choices.model_copy(update={"look_share": 0.5}).model_dump(mode="json")["look_share"] == 0.5
    assert fingerprint(choices.model_dump(mode="json")) == fingerprint(json.loads(run.plan.read_text())["choices"])
