"""Forks inside a run: they leave no trace, survive a kill, and end in a forecast."""

import json
import os
import signal

import pytest
import torch

from danlu.base.errors import Interrupted
from danlu.parallel.checkpoint import load_newest
from danlu.planning.choices import Choices
from danlu.planning.trials import Trial
from danlu.stages.train import train, train_step, train_steps
from danlu.training.trial import Session

LONG = {"n_steps": 60, "evaluate_every": 12, "ema": 0.9, "save_every_steps": 7}
FORKS = {"forks": ((9, 1), (18, 2))}
SECTIONS = {"model": {"n_layers": 2, "width": 32, "n_heads": 2, "context": 16, "dropout": 0.2}}


def finished(recipe, run):
    for _ in train_steps(recipe, run):
        pass
    return load_newest(run.checkpoints)[0]


def assert_same_bits(a, b):
    for group, tensors in a.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, b.tensors[group][name]), f"{group}/{name}"


def losses(run):
    rows = [json.loads(line) for line in (run.train / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], (row.get("validation") or {}).get("loss")) for row in rows]


@pytest.fixture(scope="module")
def kinds():
    return {"adamw": 3e-3, "muon": 5e-3, "sgd": 0.1}


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
def test_a_run_with_forks_is_bit_for_bit_the_run_without(tiny_run, kinds, kind):
    optimizer = {"lr": kinds[kind], "weight_decay": 0.1}
    sections = SECTIONS | {"optimizer": {"kind": kind}}
    plain = tiny_run("plain", choices=LONG | {"optimizer": optimizer}, **sections)
    forked = tiny_run("forked", choices=LONG | FORKS | {"optimizer": optimizer}, **sections)
    assert_same_bits(finished(*plain), finished(*forked))
    assert losses(plain[1]) == losses(forked[1])
    assert not (plain[1].train / "forks.json").exists()
    assert [f["step"] for f in json.loads((forked[1].train / "forks.json").read_text())] == [9, 18]


def test_the_forecast_is_written_and_said(tiny_run):
    recipe, run = tiny_run(choices=LONG | FORKS)
    events = [event for report in train_steps(recipe, run) for event in report.events]
    found = json.loads((run.train / "forecast.json").read_text())
    assert found["step"] == 18
    assert [e for e in events if e.startswith("forecast")] == [found["sentence"]]


def test_a_fork_is_what_a_session_cools(tiny_run):
    recipe, run = tiny_run(choices=LONG | FORKS)
    finished(recipe, run)
    choices = Choices.read(run)
    session = Session(recipe, run, Trial(choices, seed=recipe.seed), train_step)
    session.advance(18)
    (_, fork) = json.loads((run.train / "forks.json").read_text())
    assert fork["loss"] == session.cooled(2).loss
    session.close()


@pytest.mark.parametrize("stop_at", [8, 9, 13, 18, 19, 30])
def test_killed_anywhere_it_ends_the_same(tiny_run, stop_at):
    whole = tiny_run("whole", choices=LONG | FORKS, **SECTIONS)
    expected = finished(*whole)
    recipe, run = tiny_run("cut", choices=LONG | FORKS, **SECTIONS)
    for report in train_steps(recipe, run):
        if report.step == stop_at:
            break
    assert_same_bits(expected, finished(recipe, run))
    assert losses(run) == losses(whole[1])
    read = [json.loads((r.train / "forks.json").read_text()) for r in (whole[1], run)]
    assert [f["loss"] for f in read[0]] == [f["loss"] for f in read[1]]
    assert (run.train / "forecast.json").is_file()


def test_a_signal_during_a_fork_drops_it_and_the_next_process_makes_it(tiny_run, monkeypatch):
    from danlu.training import fork as forks

    whole = tiny_run("whole", choices=LONG | FORKS)
    expected = finished(*whole)
    recipe, run = tiny_run("cut", choices=LONG | FORKS)
    real = forks.put_back

    def interrupted(parts, average):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(parts, average)

    monkeypatch.setattr(forks, "put_back", interrupted)
    with pytest.raises(Interrupted, match="Stopped at step 9"):
        train(recipe, run, lambda *_: None)
    monkeypatch.undo()
    assert not (run.train / "forks.json").exists()
    assert_same_bits(expected, finished(recipe, run))
    assert [f["step"] for f in json.loads((run.train / "forks.json").read_text())] == [9, 18]


def test_a_run_that_goes_back_forgets_later_forks(tiny_run):
    recipe, run = tiny_run(choices=LONG | FORKS)
    for report in train_steps(recipe, run):
        if report.step == 20:
            break
    for folder in run.checkpoints.glob("step-*"):
        if int(folder.name[5:]) > 14:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    report = next(train_steps(recipe, run))
    assert report.step == 15
    assert [f["step"] for f in json.loads((run.train / "forks.json").read_text())] == [9]
    assert not (run.train / "forecast.json").exists()
