"""A longer run from the start of a cool-down: what one run of the whole length would have been."""

import json

import pytest
import torch

from danlu.base.errors import UserError
from danlu.base.runfolder import read_json, write_json
from danlu.parallel.checkpoint import load_newest, steps_in
from danlu.planning.choices import Choices
from danlu.planning.hardware import Machine
from danlu.planning.length import forecast
from danlu.planning.scorecard import write_scorecard
from danlu.stages.train import train_steps
from danlu.training.extend import extended, seen_of

CHOICES = {"n_steps": 20, "evaluate_every": 5, "save_every_steps": 3}
SECTIONS = {"model": {"n_layers": 2, "width": 32, "n_heads": 2, "context": 16, "dropout": 0.1},
            "optimizer": {"kind": "adamw", "lr": 3e-3}, "schedule": {"kind": "wsd", "warmup": "2 steps"},
            "train": {"length": "20 steps", "batch": 16}}  # fmt: skip


def trained(recipe, run, until=None):
    run.recipe.write_text(recipe.sparse_toml())
    for report in train_steps(recipe, run):
        if report.step == until:
            break
    return load_newest(run.checkpoints)[0]


@pytest.fixture
def short(tiny_run):
    recipe, run = tiny_run("short", choices=CHOICES, **SECTIONS)
    trained(recipe, run)
    return recipe, run


def test_the_start_of_the_cool_down_is_kept(short):
    assert 16 in steps_in(short[1].checkpoints)


def test_an_extended_run_is_bit_for_bit_the_longer_one(tiny_run, tmp_path, short):
    sections = SECTIONS | {"train": {"length": "40 steps", "batch": 16}}
    whole = trained(*tiny_run("whole", choices=CHOICES | {"n_steps": 40}, **sections))
    recipe, run = extended(short[1], "40 steps", tmp_path / "longer")
    assert steps_in(run.checkpoints) == [16]
    assert Choices.read(run).n_steps == 40
    for report in train_steps(recipe, run):
        if report.step == 23:
            break
    for _ in train_steps(recipe, run):
        pass
    longer = load_newest(run.checkpoints)[0]
    assert longer.step == 40
    for group, tensors in whole.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, longer.tensors[group][name]), f"{group}/{name}"
    rows = [json.loads(line) for line in (run.train / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 41))


def test_nothing_of_the_old_run_changes_and_a_second_call_goes_on(tmp_path, short):
    _, old = short
    before = {p: p.read_bytes() for p in old.path.rglob("*") if p.is_file() and p.name != "lock"}
    recipe, run = extended(old, "40 steps", tmp_path / "longer")
    for report in train_steps(recipe, run):
        if report.step == 25:
            break
    again = extended(old, "40 steps", tmp_path / "longer")
    assert max(steps_in(again[1].checkpoints)) == 25
    assert before == {p: p.read_bytes() for p in old.path.rglob("*") if p.is_file() and p.name != "lock"}


def test_a_time_is_counted_from_the_steps_that_were_made(tmp_path, short):
    _, run = extended(short[1], "60 s", tmp_path / "longer")
    choices = Choices.read(run)
    assert choices.time_limit_s == 60
    assert choices.n_steps > 100


@pytest.mark.parametrize(
    ("length", "said"),
    [("19 steps", "longer than the run"), ("soon", "an amount with a unit")],
)
def test_a_length_that_cannot_be_is_refused(tmp_path, short, length, said):
    with pytest.raises(UserError, match=said):
        extended(short[1], length, tmp_path / "longer")
    assert not (tmp_path / "longer").exists()


def test_a_schedule_without_a_stable_phase_says_why_not(tiny_run, tmp_path):
    recipe, run = tiny_run("cosine", choices=CHOICES, **SECTIONS | {"schedule": {"kind": "cosine"}})
    trained(recipe, run)
    with pytest.raises(UserError, match="must have a stable phase"):
        extended(run, "40 steps", tmp_path / "longer")


def test_without_its_checkpoint_it_says_what_is_missing(tiny_run, tmp_path):
    recipe, run = tiny_run("never", choices=CHOICES | {"save_every_steps": None, "save_every_s": None}, **SECTIONS)
    trained(recipe, run)
    with pytest.raises(UserError, match="at or before step 16"):
        extended(run, "40 steps", tmp_path / "longer")


def test_what_it_will_take_is_predicted_and_trusted(tmp_path, short):
    _, old = short
    machine = Machine("cpu", 2, "a processor", 2, 10**9, 10**8, True)
    write_json(old.plan, read_json(old.plan) | {"machine": machine.to_json()})
    longer, run = extended(old, "40 steps", tmp_path / "longer")
    found = {p["name"]: p for p in json.loads(run.plan.read_text())["predictions"]}
    used = json.loads((old.train / "usage.json").read_text())
    assert found["n_steps"]["low95"] == found["n_steps"]["high95"] == 40
    assert found["train_s"]["value"] > used["elapsed_s"]
    assert found["step_s"]["low80"] < found["step_s"]["value"]
    assert "fewer than two copies were cooled" in found["final_loss"]["why"]
    for _ in train_steps(longer, run):
        pass
    card = write_scorecard(run, {})
    assert not any("prove" in note for note in card.notes)
    assert {s.prediction.name for s in card.scores if s.outcome is not None} >= {
        "train_s",
        "step_s",
        "n_steps",
        "peak_bytes",
    }


def test_its_end_is_told_from_the_old_ones_end_and_copies(monkeypatch, short):
    """A run of 200 steps that followed 2 + 8 n^-0.5, its copies and its cool-down too."""
    recipe, old = short
    monkeypatch.setattr("danlu.training.extend.unique", lambda *_: (10**9, 16))
    loss = lambda n: 2 + 8 * n**-0.5  # noqa: E731
    rows = [{"step": s, "loss": 1.04 * loss(s), "times": {"forward": 0.1}, "elapsed_s": 0.1 * s} for s in range(1, 201)]
    rows[149]["validation"], rows[199]["validation"] = {"loss": 1.04 * loss(150)}, {"loss": loss(200)}
    forks = [
        {"step": n - n // 10, "n_cool": n // 10, "loss": loss(n), "sd": 0, "seconds": 0, "before": 1.04 * loss(n)}
        for n in (10, 20)
    ]
    (old.train / "forks.json").write_text(json.dumps(forks))
    seen = seen_of(recipe, old, Choices.read(old).model_copy(update={"n_steps": 400}), rows, 160)
    assert [fork.end for fork in seen.forks] == [20, 200]
    final = forecast(seen).predictions[0]
    assert final.low80 < loss(400) < final.high80
    assert final.value == pytest.approx(loss(400), rel=0.03)
