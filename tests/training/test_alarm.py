"""The alarm on real runs: it changes no weight, finds a planted fault, stops when told to, and goes on after a resume."""

import json

import pytest
import torch

from danlu.base.errors import GateError
from danlu.parallel.checkpoint import load_newest
from danlu.stages.train import train_steps
from danlu.training import loop

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
