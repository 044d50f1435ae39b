"""danlu batch, whole: branches at growing batches, what they say, what is refused."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from danlu import cli
from danlu.base.errors import GateError, UserError
from danlu.planning.choices import Choices
from danlu.planning.critical_batch import CriticalBatch
from danlu.planning.noise_scale import NoiseScale
from danlu.stages import batch, train
from danlu.stages.batch import Request, largest_factor, measure_batch, share_of, verdict
from danlu.stages.report_batch import BatchRecord, how_large, noise


def measured(recipe: Any, run: Any, **asked: str) -> dict[str, Any]:
    """As the pipeline does."""
    return measure_batch(recipe, run, Request(**asked), partial(train.grow, recipe, run), lambda *_: None)


def test_branches_are_measured_written_and_shown(tiny_run: Any) -> None:
    recipe, run = tiny_run(choices={"n_steps": 400, "micro_batch": 8, "signals_every": None})
    plan = run.plan.read_text()
    found = measured(recipe, run, at="10%", length="8%")
    assert json.loads(json.dumps(found)) == json.loads((run.path / "batch" / "result.json").read_text())
    assert run.plan.read_text() == plan
    rows = found["rows"]
    assert [row["batch"] for row in rows] == [4, 8, 16]
    assert rows[0]["rate"] == pytest.approx(3e-3 / 2)  # the planned rate belongs to 16 samples
    assert rows[2]["rate"] == pytest.approx(3e-3)
    assert (found["n_samples"], found["after"]) == (128 * 4, 160 * 4)
    assert rows[0]["above"] == 0.0
    assert all(row["per_s"] > 0 and math.isfinite(row["above"]) for row in rows)
    assert found["noise"]["n_steps"] > 10
    assert [d["name"] for d in found["decisions"]] == ["train.batch", "train.batch"]
    shown = str(how_large(BatchRecord(**found)))
    assert found["verdict"] in shown.replace("&#x27;", "'")
    assert "16 (planned)" in shown


def test_a_run_that_diverges_is_told(tiny_run: Any) -> None:
    recipe, run = tiny_run(choices={"n_steps": 400, "optimizer": {"lr": 1e30, "weight_decay": 0.0}})
    with pytest.raises(GateError, match=r"Give a smaller optimizer\.lr"):
        measured(recipe, run)
    assert not (run.path / "batch" / "result.json").exists()


def test_a_run_that_has_cooled_down_is_refused(tiny_run: Any) -> None:
    recipe, run = tiny_run(choices={"n_steps": 400})
    with pytest.raises(UserError, match="--at must lie before the rate has gone to 0"):
        measured(recipe, run, at="99.9%", length="0.1%")


def test_a_batch_of_one_says_nothing_of_noise(tiny_run: Any) -> None:
    recipe, run = tiny_run(choices={"n_steps": 200, "batch": 1, "micro_batch": 1, "signals_every": None})
    found = measured(recipe, run, length="20%")
    assert [row["batch"] for row in found["rows"]] == [1, 2, 4]
    assert found["noise"]["n_steps"] > 2  # of the widest branch's updates
    assert any("The recipe gives 1, the" in note for note in found["notes"])


def test_shares_and_factors() -> None:
    assert share_of("--at", "10%") == 0.1
    for wrong in ("10", "0%", "101%", "x%", "nan%"):
        with pytest.raises(UserError, match="--at must be a share of the run"):
            share_of("--at", wrong)
    assert largest_factor(16 * 8 * batch.PIECE_STEPS, 1e9) == 16
    assert largest_factor(16 * 8 * batch.PIECE_STEPS - 1, 1e9) == 8
    assert largest_factor(1, 1e9) == batch.LEAST
    assert largest_factor(1e9, 8) == 8
    with pytest.raises(UserError, match="must give at least 4 updates"):
        largest_factor(1e9, 3)


def row(size: int, per_s: float) -> dict[str, Any]:
    """A branch of `size` samples at the rate's root."""
    return {"batch": size, "per_s": per_s, "rate": 1e-3 * math.sqrt(size / 8)}


def test_the_verdict_names_the_fastest_within_the_tolerance(tiny_run: Any) -> None:
    _, run = tiny_run(choices={"batch": 16, "optimizer": {"lr": 1e-3, "weight_decay": 0.0}})
    choices, critical = Choices.read(run), CriticalBatch(32, 16, 64.0, ())
    rows = [row(8, 100.0), row(16, 200.0), row(32, 300.0), row(64, 900.0)]
    said = verdict(choices, rows, critical)
    assert "surely 16, surely not 64" in said
    assert (
        "32 makes 1.5 times the planned 16's samples a second: write train.batch = 32 and optimizer.lr = 0.00141"
        in said
    )
    rows[2]["per_s"] = 205.0
    assert "None of those is faster than the planned 16 by more than 5%" in verdict(choices, rows, critical)


def test_training_noise_is_drawn_with_its_scale() -> None:
    """Gradients whose noise is 40 times their signal: a scale of 40 samples."""
    entry = {"adaptive": {"noise": 40.0, "signal": 1.0}, "plain": {"noise": 9.0, "signal": 1.0}}
    wobble = [{k: {"noise": v["noise"] * f, "signal": 1.0} for k, v in entry.items()} for f in (0.9, 1.1)]
    shown = str(noise([(step, wobble[step % 2]) for step in range(40)]))
    assert "second half of training: 40" in shown
    assert "adaptive length" in shown
    assert "<svg" in shown
    hopeless = {"plain": {"noise": 1.0, "signal": -1.0}}
    assert noise([(step, hopeless) for step in range(9)]) is None
    faded = [(step, wobble[step % 2] if step < 8 else hopeless) for step in range(20)]
    assert "inf" not in str(noise(faded))
    assert "lost in its noise" in str(noise(faded))
    assert noise([(1, 5), (2, {"plain": {"noise": 1}})]) is None


def test_a_lost_gradient_is_said() -> None:
    assert "cannot be cut" in batch.of_noise(NoiseScale(math.nan, 0.0, math.inf, 0))
    assert "is lost in its noise" in batch.of_noise(NoiseScale(math.inf, 0.0, math.inf, 9))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b,y\n" + "".join(f"{i % 7},{i % 5},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(600)))
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "t"\n[data]\nkind = "table"\npath = "{table}"\ntarget = "y"\n[model]\nkind = "mlp"\nlayers = [8]\n'
        '[task]\nkind = "classify"\n[train]\nlength = "40 epochs"\nbatch = 32\nthreads = 1\n'
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["batch", str(recipe), "--out", str(tmp_path / "run"), "--length", "5%"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "32 (planned)" in said
    assert "samples an update cost less than 1% of the loss" in said
    assert "How large may the batch be?" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["batch", str(recipe), "--out", str(tmp_path / "other"), "--at", "half"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        cli.main(["batch", str(recipe), "--out", str(tmp_path / "other"), "--at", "90%", "--length", "20%"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert 'must together be at most 100%, where the run ends. Got "90% and 20%". Fix: lower one of them.' in said
    assert not (tmp_path / "other").exists()  # refused before anything is prepared
