"""What `danlu plan` answers for the tasks of the planning benchmark, kept in planning_plans.jsonl."""

from __future__ import annotations

import fcntl
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from planning_tasks import FROZEN, ROOT, NotKeptError, Task, opened

from danlu.base.durable import fingerprint
from danlu.base.runfolder import RunFolder, read_json
from danlu.recipe import Recipe

PLANS = ROOT / "benchmarks" / "planning_plans.jsonl"


def plan_of(task: Task, budget: str, factor: float = 1.0, length: str = "") -> dict[str, Any]:
    """What `danlu plan` answers for the task's recipe with rate and batch left open; the length is the task's samples unless
    given. One thread, quiet files."""
    from danlu.pipeline import lab_of
    from danlu.planning import learning_rate
    from danlu.stages.plan import plan

    key = fingerprint([task.recipe, task.n_samples, budget, factor, "plan 4", *([length] if length else [])])
    if PLANS.is_file():
        for line in PLANS.read_text(encoding="utf-8").splitlines():
            if (row := json.loads(line))["key"] == key:
                return dict(row)
    if FROZEN["on"]:
        raise NotKeptError(task.name)
    _, folder = opened(task)
    raw = {"name": task.name, "schedule": {"kind": "wsd", "decay": "20%"}, **task.recipe, "plan": {"budget": budget},
           "train": {"length": length or f"{task.n_samples} samples", "threads": 1, "precision": task.precision}}  # fmt: skip
    recipe = Recipe.model_validate(raw)
    with tempfile.TemporaryDirectory() as place:
        own = RunFolder.create(Path(place) / "run", task.name, recipe.digest())
        own.data.symlink_to(folder.data)
        lab = lab_of(recipe, own)
        original = learning_rate.settle
        learning_rate.settle = lambda law, *rest: original(bent(law, factor), *rest)
        began = time.perf_counter()
        try:
            choices = plan(recipe, own, lambda *_: None, lab)
        finally:
            learning_rate.settle = original
        planning_s = time.perf_counter() - began
        written = read_json(own.plan)
    step_s = next(p["value"] for p in written["predictions"] if p["name"] == "step_s")
    decision = next(d for d in written["decisions"] if d["name"] == "optimizer.lr")
    cost = planning_s / (planning_s + choices.n_steps * step_s)
    row = {"key": key, "task": task.name, "budget": budget, "factor": factor, "lr": choices.optimizer["lr"],
           "batch": choices.batch, "cost": round(cost, 4), "planning_s": round(planning_s, 2), "origin": decision["origin"],
           "decay": choices.optimizer.get("weight_decay"),
           "low": decision.get("low"), "high": decision.get("high"), "why": decision["why"]}  # fmt: skip
    with PLANS.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(row) + "\n")
    return row


def bent(law: Any, factor: float) -> Any:
    """A law's answer, wrong by a factor, as sure of itself as before."""
    return replace(law, value=law.value * factor, low=law.low * factor, high=law.high * factor)
