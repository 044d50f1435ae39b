"""The loop: any cut gives the same curve, any interruption the same bits, and nothing bad is ever learnt or saved."""

import dataclasses
import json
import math
import os
import signal

import numpy as np
import pytest
import torch

from danlu.base import native
from danlu.base.errors import GateError, Interrupted, UserError
from danlu.base.runfolder import SampleLog
from danlu.parallel.checkpoint import load_newest
from danlu.stages import train as stage
from danlu.stages.train import time_steps, train, train_steps


def curve(recipe, run):
    return [report.loss for report in train_steps(recipe, run)]


def final(run):
    snapshot, _ = load_newest(run.checkpoints)
    return snapshot


def assert_same_bits(a, b):
    for group, tensors in a.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, b.tensors[group][name]), f"{group}/{name}"


def rows(run):
    return [json.loads(line) for line in (run.train / "metrics.jsonl").read_text().splitlines()]


def ids(run):
    return SampleLog(run.train / "sample_ids.bin", 16).rows()


def test_it_learns_and_logs(tiny_run):
    recipe, run = tiny_run(choices={"n_steps": 60, "evaluate_every": 20})
    losses = curve(recipe, run)
    assert losses[0] == pytest.approx(math.log(13), abs=1e-4)
    assert losses[-1] < losses[0] - 0.5
    log = rows(run)
    assert [row["step"] for row in log] == list(range(1, 61))
    assert [row["step"] for row in log if "validation" in row] == [20, 40, 60]
    assert {"data", "forward", "backward", "optimizer"} <= set(log[0]["times"])
    assert ids(run)[:, 0].tolist() == list(range(1, 61))
    assert final(run).state["position"]["finished"] == "all 60 steps are done"
    assert curve(recipe, run) == []


@pytest.mark.parametrize("operations", ["plain", "native"])
def test_any_cut_into_micro_batches_gives_the_same_curve(tiny_run, operations):
    if operations == "native" and native.load() is None:
        pytest.skip(f"no native kernels here: {native.reason()}")
    curves, orders = [], []
    for n in (1, 2, 4, 16):
        recipe, run = tiny_run(f"cut-{n}", choices={"micro_batch": 16 // n, "operations": operations})
        curves.append(curve(recipe, run))
        orders.append(ids(run))
    for other, order in zip(curves[1:], orders[1:], strict=True):
        assert np.array_equal(order, orders[0])
        assert max(abs(a - b) for a, b in zip(curves[0], other, strict=True)) < 1e-6
    recipe, run = tiny_run("again", choices={"micro_batch": 4, "operations": operations})
    assert curve(recipe, run) == curves[2]


def test_the_number_of_workers_changes_nothing(tiny_run):
    runs = []
    for n in (0, 1, 3):
        recipe, run = tiny_run(f"workers-{n}", train={"workers": n})
        runs.append((curve(recipe, run), ids(run), final(run)))
    for losses, order, snapshot in runs[1:]:
        assert losses == runs[0][0]
        assert np.array_equal(order, runs[0][1])
        assert_same_bits(runs[0][2], snapshot)


@pytest.mark.parametrize("stop_at", [1, 3, 7, 11])
def test_leaving_and_resuming_gives_the_same_bits(tiny_run, stop_at):
    sections = {"model": {"n_layers": 2, "width": 32, "n_heads": 2, "context": 16, "dropout": 0.2}}
    whole = tiny_run("whole", choices={"ema": 0.9}, **sections)
    losses = curve(*whole)
    recipe, run = tiny_run("cut", choices={"ema": 0.9}, **sections)
    for report in train_steps(recipe, run):
        if report.step == stop_at:
            break
    assert (curve(recipe, run) or losses)[-1] == losses[-1]
    assert_same_bits(final(whole[1]), final(run))
    assert [row["loss"] for row in rows(run)] == losses
    assert np.array_equal(ids(run), ids(whole[1]))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(tiny_run, number, code):
    recipe, run = tiny_run(choices={"save_every_steps": None})

    def send(what, step, n_steps):
        if step == 5:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="danlu resume") as caught:
        train(recipe, run, send)
    assert caught.value.exit_code == code
    assert final(run).step == 5
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def poison(monkeypatch, at, value=math.nan):
    """The loss of batches `at` (by training step) becomes `value` times itself."""
    original = stage.train_step

    def poisoned(parts, batches, lr, judge, clock):
        calls.append(None)
        if len(calls) in at:
            right = parts.task
            task = type("Bad", (), {"loss_sum": lambda _, output, batch: right.loss_sum(output, batch) * value})()
            parts = dataclasses.replace(parts, task=task)
        return original(parts, batches, lr, judge, clock)

    calls = []
    monkeypatch.setattr(stage, "train_step", poisoned)


def test_a_nan_stops_before_the_update(tiny_run, monkeypatch):
    recipe, run = tiny_run()
    poison(monkeypatch, {8})
    with pytest.raises(GateError, match=r"not finite at step 8.*samples"):
        curve(recipe, run)
    snapshot = final(run)
    assert snapshot.step == 6
    assert all(torch.isfinite(t).all() for t in snapshot.tensors["model"].values())
    monkeypatch.undo()
    assert len(curve(recipe, run)) == 6


def test_a_nan_is_skipped_when_so_asked(tiny_run, monkeypatch):
    recipe, run = tiny_run(train={"on_nonfinite": "skip 1"})
    poison(monkeypatch, {8})
    assert len(curve(recipe, run)) == 12
    assert all(torch.isfinite(t).all() for t in final(run).tensors["model"].values())
    (skipped,) = [row for row in rows(run) if any("skipped" in e for e in row.get("events", []))]
    assert skipped["step"] == 8
    assert skipped["loss"] is None


def test_rolling_back_passes_over_the_batches_since(tiny_run, monkeypatch):
    recipe, run = tiny_run(train={"on_nonfinite": "roll back"})
    poison(monkeypatch, {8})
    for _ in train_steps(recipe, run):
        pass
    assert final(run).step == 12
    order, undisturbed = ids(run), tiny_run("other")
    curve(*undisturbed)
    expected = ids(undisturbed[1])[:, 1:]
    assert np.array_equal(order[:6, 1:], expected[:6])
    assert np.array_equal(order[6:10, 1:], expected[8:12])


def test_rolling_back_without_a_checkpoint_stops(tiny_run, monkeypatch):
    recipe, run = tiny_run(train={"on_nonfinite": "roll back"}, choices={"save_every_steps": 100})
    poison(monkeypatch, {2})
    with pytest.raises(GateError, match="no checkpoint yet"):
        curve(recipe, run)


def test_it_stops_at_a_target_and_by_patience(tiny_run):
    recipe, run = tiny_run(train={"target": 5.0})
    assert len(curve(recipe, run)) == 4
    assert "target" in final(run).state["position"]["finished"]
    recipe, run = tiny_run("patient", choices={"optimizer": {"lr": 1e-12, "weight_decay": 0.0}}, train={"plateau": 0.1})
    assert len(curve(recipe, run)) == 8


def test_a_time_budget_is_hard_and_saves(tiny_run):
    recipe, run = tiny_run(choices={"n_steps": 10_000_000, "time_limit_s": 1.0, "evaluate_every": None})
    last = train(recipe, run, lambda *_: None)
    assert 0.2 < last.elapsed_s <= 1.0
    assert final(run).step == last.step
    assert "time budget" in final(run).state["position"]["finished"]


def test_a_checkpoint_of_other_data_is_refused(tiny_run):
    recipe, run = tiny_run()
    curve(recipe, run)
    card = json.loads((run.data / "card.json").read_text())
    (run.data / "card.json").write_text(json.dumps(card | {"fingerprint": "other"}))
    with pytest.raises(UserError, match="another data"):
        curve(recipe, run)


def test_l2_and_clipping_reach_the_update(tiny_run):
    plain = curve(*tiny_run("a"))
    assert curve(*tiny_run("b", train={"max_norm": 1e-3})) != plain
    assert curve(*tiny_run("c", train={"l2": 0.1})) != plain
    assert curve(*tiny_run("d", train={"clip_value": 1e-4})) != plain


def test_timing_uses_the_same_step_and_keeps_nothing(tiny_run):
    recipe, run = tiny_run()
    from danlu.planning.choices import Choices

    seconds = time_steps(recipe, run, Choices.read(run), 3)
    assert len(seconds) == 3
    assert min(seconds) > 0
    assert not run.train.exists()
