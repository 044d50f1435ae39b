"""The alarm on real runs: it changes no weight, finds a planted fault, stops when told to, and goes on after a resume."""

import json
import subprocess
import sys

import pytest
import torch

from danlu.base.errors import GateError
from danlu.parallel.checkpoint import load_newest
from danlu.stages.train import train_steps
from danlu.training import alarm, loop

BIG = {"n_steps": 40, "batch": 4, "micro_batch": 4, "signals_every": 4, "save_every_steps": 10, "evaluate_every": 8}
MODEL = {"n_layers": 2, "width": 32, "n_heads": 2, "context": 16, "dropout": 0.1}


def weights(run):
    saved, _ = load_newest(run.checkpoints)
    return saved.tensors["model"]


def finished(recipe, run):
    return [event for report in train_steps(recipe, run) for event in report.events if event.startswith("alarm")]


@pytest.fixture
def doubled_loader(monkeypatch):
    """Every batch comes four times."""
    made = loop.open_loader

    def open_loader(*given):
        loader = made(*given)
        whole = loader.micro_batches
        loader.micro_batches = lambda step, micro: whole(step // 4, micro)
        return loader

    monkeypatch.setattr(loop, "open_loader", open_loader)


def test_weights_are_those_of_a_run_without_it(tiny_run):
    found = []
    for name in ("warn", "none"):
        recipe, run = tiny_run(name, BIG, train={"on_alarm": name}, model=MODEL)
        assert finished(recipe, run) == []
        found.append(weights(run))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[1])


def test_a_planted_fault_is_told_in_the_log(tiny_run, doubled_loader):
    recipe, run = tiny_run("broken", BIG)
    assert any("duplicated batches" in event for event in finished(recipe, run))
    rows = [json.loads(line) for line in (run.train / "metrics.jsonl").read_text().splitlines()]
    assert any("duplicated batches" in event for row in rows for event in row.get("events", ()))


def test_it_stops_when_told_to_and_keeps_the_state(tiny_run, doubled_loader):
    recipe, run = tiny_run("stopped", BIG, train={"on_alarm": "stop"})
    with pytest.raises(GateError, match="duplicated batches"):
        finished(recipe, run)
    assert load_newest(run.checkpoints)[0] is not None


def test_a_resumed_run_says_what_the_undisturbed_one_says(tiny_run, doubled_loader):
    recipe, run = tiny_run("whole", BIG)
    whole = finished(recipe, run)
    recipe, run = tiny_run("cut", BIG)
    steps = train_steps(recipe, run)
    early = [e for _ in range(6) for e in next(steps).events if e.startswith("alarm")]
    steps.close()
    assert early + finished(recipe, run) == whole


def test_descend_is_adam_with_a_clipped_gradient():
    torch.manual_seed(0)
    x, y = torch.randn(32, 5), torch.randn(32, 1)
    nets = [torch.nn.Linear(5, 1) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    solver, plain = torch.optim.Adam(nets[0].parameters(), lr=0.03), []
    for _ in range(20):
        solver.zero_grad()
        loss = ((nets[0](x) - y) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(nets[0].parameters(), 0.5)
        solver.step()
        plain.append(float(loss.detach()))
    found = alarm.descend(list(nets[1].parameters()), lambda: ((nets[1](x) - y) ** 2).mean(), 20, 0.03, max_norm=0.5)
    assert found == pytest.approx(plain, rel=1e-4)


def test_a_run_whose_loss_still_falls_is_asked_again_later(tiny_run):
    recipe, run = tiny_run("asked", BIG | {"n_steps": 400}, model=MODEL)
    with loop.Loop(recipe, run) as opened:
        watch, model = opened.alarm, opened.parts.model
        watch.see(0, opened.batches())
        asked = []
        watch.learn_one_batch = lambda model: asked.append(1) or {}
        watch.constant_loss = lambda model, batch: 3.0
        assert [step for step in range(300) if watch.is_due(step)] == [40]
        watch.diagnosis.losses = [5.0 - 0.05 * i for i in range(30)]  # falling, and above what a constant answer has
        watch.look_for_progress(model)
        assert asked == []
        assert [step for step in range(300) if watch.is_due(step)] == [40, 70, 100, 130, 160, 190]
        watch.diagnosis.losses = [3.2] * 30
        watch.look_for_progress(model)
        assert asked == [1]
        assert not watch.is_due(70)
        watch.diagnosis.losses = [2.0] * 30
        watch.look_for_progress(model)
        assert asked == [1]


def test_torchs_compiler_stays_away_from_a_run(tiny_run):
    recipe, run = tiny_run("light", BIG | {"n_steps": 60}, model=MODEL)
    code = f"""
import sys
from danlu.base.runfolder import RunFolder
from danlu.recipe import Recipe
from danlu.stages.train import train_steps
from danlu.training import alarm
alarm.NOT_LEARNED, alarm.STILL_FALLS = 0.0, 1e9
list(train_steps(Recipe.load({str(run.recipe)!r}), RunFolder({str(run.path)!r})))
assert "torch._dynamo" not in sys.modules, "the compiler was loaded"
"""
    if not run.recipe.is_file():
        run.recipe.write_text(recipe.sparse_toml(), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
