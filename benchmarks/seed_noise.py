"""How seed noise changes with the length of a run: tiny fully decayed runs of 2^k x 25 updates, several seeds each.

    DANLU_DATA=../shared/data python benchmarks/seed_noise.py [--seeds 8]      writes benchmarks/seed_noise.md

A planner sees the noise of short runs and must compare long ones. For each task: relative sd of the final validation loss at
each length, its chi-square interval, the slope of log sd over log length with its 95% interval, and beside it the noise of
one evaluation (bootstrap over blocks), of the paired difference of two seeds, and what n = 3 runs an arm resolve.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from planning_tasks import Task, choices_of, opened, small, tasks, text

from danlu.planning.noise import evaluation_noise, paired_noise, resolves, seed_noise
from danlu.planning.trials import Look, Trial
from danlu.stages.train import run_trial

RESULT = Path(__file__).with_suffix(".md")
KEPT = RESULT.with_suffix(".json")
LENGTHS = tuple(25 * 2**k for k in range(5))


def measured_tasks() -> list[Task]:
    """A byte language model, an image net and a table net, all tiny."""
    known = tasks()
    path = known["bytes"].recipe["data"]["path"]
    bytes_ = Task("bytes", text(path, {"kind": "bytes"}, small(2, 64, 32)), 10**6, 16, 4e-3)
    return [bytes_, known["table-classify"], known["image-cnn"]]


def looks(task: Task, n_steps: int, n_seeds: int, batch: int) -> list[Look]:
    """The last look of a run of n_steps from each seed."""
    recipe, folder = opened(task)
    choices = choices_of(task, task.lr, batch).model_copy(update={"n_steps": n_steps})
    outcomes = [run_trial(recipe, folder, Trial(choices, seed=seed)) for seed in range(n_seeds)]
    return [outcome.looks[-1] for outcome in outcomes]


def row(found: list[Look], n_steps: int) -> dict[str, Any]:
    """What the runs of one length say."""
    spread = seed_noise([look.loss for look in found])
    pairs = [paired_noise(a, b) for a, b in zip(found[::2], found[1::2], strict=False)]
    return {
        "n_steps": n_steps, "loss": float(np.mean([look.loss for look in found])), "sd": spread.sd, "low": spread.low,
        "high": spread.high, "n": spread.n, "evaluation": median(evaluation_noise(look) for look in found),
        "paired": median(pairs), "resolves": resolves(spread.sd, 3, is_paired=False),
    }  # fmt: skip


def slope(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """(slope of log sd over log updates, half-width of its 95% interval): var log sd = 1 / (2 (n - 1)) for normal losses."""
    x = np.log([r["n_steps"] for r in rows])
    y = np.log([r["sd"] for r in rows])
    centred = x - x.mean()
    error = math.sqrt(1 / (2 * (rows[0]["n"] - 1)) / float((centred**2).sum()))
    return float(centred @ y / (centred**2).sum()), 1.96 * error


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """The tables."""
    lines = ["# Seed noise against length", "", (__doc__ or "").split("\n\n")[-1].strip().replace("\n", " "), ""]
    lines += ["| task | updates | loss | sd over seeds | 95% interval | n | one evaluation | paired, two seeds | 3 + 3 runs resolve |",
              "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for task, rows in found.items():
        for r in rows:
            interval = f"{r['low']:.2%} to {r['high']:.2%}"
            lines.append(f"| {task} | {r['n_steps']} | {r['loss']:.4f} | {r['sd']:.2%} | {interval} | {r['n']} | {r['evaluation']:.2%} | "
                         f"{r['paired']:.2%} | {r['resolves']:.2%} |")  # fmt: skip
    said = ", ".join(f"{task} {s:+.2f} +- {e:.2f}" for task, (s, e) in ((t, slope(r)) for t, r in found.items()))
    lines += ["", f"Slope of log sd over log updates, with its 95% half-width: {said}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, keep, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--page", action="store_true", help="only write the page again")
    asked = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    for task in [] if asked.page else measured_tasks():
        if task.name in found:
            continue
        batch = min(task.batch, 32)
        found[task.name] = [row(looks(task, n, asked.seeds, batch), n) for n in LENGTHS]
        KEPT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(task.name, slope(found[task.name]), flush=True)
    RESULT.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
