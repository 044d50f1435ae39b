"""Every data kind, model and task on samples keeps the same promises. A new member is one line in CASES."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import danlu
from danlu.build import build_model, set_machine
from danlu.data.samples import SampleLoader, fixed_seeds
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.training.loop import make_parts
from tests.contracts import sample_cases as made

N_STEPS = 6
GOLDEN = Path(__file__).with_name("golden.json")
Case = Callable[[Path], dict[str, Any]]


def recipe_of(case: Case, folder: Path, **train: Any) -> Recipe:
    """A short run of a case; sections of the case win."""
    sections = case(folder)
    settings = {"length": f"{N_STEPS} steps", "precision": "fp32", "signals": "never", "threads": 1} | train
    sections["train"] = settings | sections.get("train", {})
    sections["evaluate"] = {"every": "3 steps", "bootstrap": 100} | sections.get("evaluate", {})
    sections.setdefault("optimizer", {"kind": "adamw", "lr": 3e-3, "weight_decay": 0.0})
    return Recipe(name="case", checkpoint={"save_every": "2 steps"}, plan={"budget": "1 s"}, **sections)


def prepared(case: Case, folder: Path, **train: Any) -> tuple[Recipe, Any]:
    """A recipe with its data and plan."""
    recipe = recipe_of(case, folder, **train)
    return recipe, danlu.plan(recipe, folder / "run")


def same_as_golden(case: Case, metrics: Path) -> None:
    """Losses and gradient norms of the run are those in golden.json: a refactor changes nothing, a change of an algorithm
    shows. DANLU_GOLDEN=write writes them anew."""
    name = next(name for name, made_by in made.CASES.items() if made_by is case)
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    found = {key: [float(f"{row[key]:.7g}") for row in rows] for key in ("loss", "grad_norm")}
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}
    if os.environ.get("DANLU_GOLDEN") == "write":
        golden[name] = found
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(golden[key])}" for key in sorted(golden))
        GOLDEN.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    assert name in golden, "a new case: run this test once with DANLU_GOLDEN=write"
    for key, values in golden[name].items():
        assert found[key] == pytest.approx(values, rel=5e-3, abs=1e-5), key


@pytest.mark.parametrize("case", made.CASES.values(), ids=made.CASES)
def test_a_run_scores_reports_and_predicts_the_same_after_saving(case: Case, tmp_path: Path) -> None:
    recipe = recipe_of(case, tmp_path)
    run = danlu.run(recipe, tmp_path / "run")
    scores, card = run.scores, run.card
    assert card.rows_in == card.rows_used + sum(card.rows_rejected.values())
    head = scores.metrics[scores.headline]
    assert np.isfinite(head.value)
    assert head.low <= head.high
    assert scores.baselines
    page = run.report.read_text(encoding="utf-8")
    assert "cannot draw" not in page
    assert scores.headline.replace("_", " ") in page.replace("_", " ")
    same_as_golden(case, run.path / "train/metrics.jsonl")
    weights = load_file(run.path / "package/weights.safetensors")
    own = dict(run.model.state_dict()) if recipe.model.kind != "module" else None  # type: ignore[attr-defined]
    if own is not None:
        assert all(torch.equal(own[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("case", made.CASES.values(), ids=made.CASES)
def test_a_stopped_run_ends_with_the_same_bits(case: Case, tmp_path: Path) -> None:
    whole = danlu.train(recipe_of(case, tmp_path / "a"), tmp_path / "a/run")
    stopped = recipe_of(case, tmp_path / "b")
    for report in danlu.train_steps(stopped, tmp_path / "b/run"):
        if report.step == 3:
            break
    again = danlu.train(stopped, tmp_path / "b/run")
    for path in sorted((whole.path / "data").glob("*.npy")):  # each run prepares its own
        assert path.read_bytes() == (again.path / "data" / path.name).read_bytes(), path.name
    for run in (whole, again):
        assert (run.path / f"train/checkpoints/step-{N_STEPS:08d}").is_dir()
    files = sorted(p.name for p in (whole.path / f"train/checkpoints/step-{N_STEPS:08d}").glob("*.safetensors"))
    assert files
    for name in files:
        one, other = (load_file(r.path / f"train/checkpoints/step-{N_STEPS:08d}" / name) for r in (whole, again))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k], other[k]) for k in one), name


@pytest.mark.parametrize("case", made.CASES.values(), ids=made.CASES)
def test_the_cut_into_micro_batches_changes_nothing(case: Case, tmp_path: Path) -> None:
    recipe, run = prepared(case, tmp_path)
    choices = Choices.read(run.folder)
    set_machine(choices, True)
    task: Any = recipe.task
    data: Any = recipe.data
    model = build_model(recipe, run.card, choices).eval()
    loader = SampleLoader(data.open(run.folder.data, run.card, "train"), 6, 0, change=task.change)
    found = []
    for micro in (6, 4, 1):
        model.zero_grad()
        pieces = loader.micro_batches(0, micro)
        n_targets = sum(piece.n_targets for piece in pieces)
        total = 0.0
        for piece in pieces:
            loss = task.loss_sum(model(piece), piece) / max(1, n_targets)
            loss.backward()
            total += float(loss.detach())
        norm = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
        found.append((total, norm, n_targets))
    for total, norm, n_targets in found[1:]:
        assert n_targets == found[0][2]
        assert total == pytest.approx(found[0][0], rel=2e-5, abs=1e-6)
        assert norm == pytest.approx(found[0][1], rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("case", made.CASES.values(), ids=made.CASES)
def test_one_batch_can_be_learned_by_heart(case: Case, tmp_path: Path) -> None:
    recipe, run = prepared(case, tmp_path)
    choices = Choices.read(run.folder)
    set_machine(choices, True)
    parts = make_parts(recipe, run.card, choices)
    task: Any = recipe.task
    data: Any = recipe.data
    split = data.open(run.folder.data, run.card, "train")
    rows = np.arange(min(4, len(split)))
    batch = task.change(split.batch(rows), fixed_seeds(rows))
    losses = []
    for step in range(60):
        torch.manual_seed(step)
        loss = task.loss_sum(parts.model(batch), batch) / batch.n_targets
        loss.backward()
        parts.optimizer.step(3e-3)
        parts.optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.8 * losses[0], losses[::10]


@pytest.mark.parametrize("case", made.CASES.values(), ids=made.CASES)
def test_check_counts_what_is_built(case: Case, tmp_path: Path) -> None:
    recipe, run = prepared(case, tmp_path)
    n_parameters = sum(p.numel() for p in build_model(recipe, run.card, Choices.read(run.folder)).parameters())
    found = danlu.check(recipe)
    exact = recipe.data.kind in made.EXACT  # type: ignore[attr-defined]
    assert found.n_parameters == n_parameters if exact else 0.3 < found.n_parameters / n_parameters < 3
