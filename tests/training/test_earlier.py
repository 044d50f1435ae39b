"""Finished runs beside this one: only those of the same model, data and length count."""

import json
import math

import pytest

from danlu.base.contracts import DataCard
from danlu.base.runfolder import read_json
from danlu.planning.choices import Choices
from danlu.stages.train import train_steps
from danlu.training.earlier import earlier_runs, expected_loss

SECTIONS = {"train": {"length": "30 steps", "batch": 16}}


def trained(tiny_run, name, until=None, **sections):
    recipe, run = tiny_run(name, choices={"n_steps": 30, "evaluate_every": 3}, **SECTIONS | sections)
    run.recipe.write_text(recipe.sparse_toml())
    for report in train_steps(recipe, run):
        if report.step == until:
            break
    return recipe, run


def told(recipe, run):
    return list(earlier_runs(recipe, run, Choices.read(run), DataCard(**read_json(run.data / "card.json")), 0.2))


def test_a_finished_run_of_the_same_kind_tells_its_losses(tiny_run):
    _, first = trained(tiny_run, "first")
    recipe, run = tiny_run("second", choices={"n_steps": 30, "evaluate_every": 3}, **SECTIONS)
    (found,) = told(recipe, run)
    rows = [json.loads(line) for line in (first.train / "metrics.jsonl").read_text().splitlines()]
    looks = {row["step"]: row["validation"]["loss"] for row in rows if "validation" in row}
    assert found.name == "first"
    assert found.end == pytest.approx(math.log(min(looks.values())))
    assert found.now == pytest.approx(math.log(looks[6]))
    card = DataCard(**read_json(run.data / "card.json"))
    choices = Choices.read(run)
    assert expected_loss(recipe, run, choices, card)[0].value == pytest.approx(min(looks.values()))
    far = choices.model_copy(update={"optimizer": {"lr": 1e-4}})
    assert not expected_loss(recipe, run, far, card)[0].is_known


def test_others_do_not_count_and_broken_ones_do_no_harm(tiny_run):
    trained(tiny_run, "stopped", until=20)
    trained(tiny_run, "other-model", model={"n_layers": 1, "width": 32, "n_heads": 2, "context": 16})
    _, data = trained(tiny_run, "other-data")
    card = read_json(data.data / "card.json")
    (data.data / "card.json").write_text(json.dumps(card | {"fingerprint": "other"}))
    _, broken = trained(tiny_run, "broken")
    broken.plan.write_text("{")
    recipe, run = tiny_run("own", choices={"n_steps": 30}, **SECTIONS)
    assert told(recipe, run) == []
    recipe, run = tiny_run("longer", choices={"n_steps": 60}, **SECTIONS)
    trained(tiny_run, "whole")
    assert told(recipe, run) == []
