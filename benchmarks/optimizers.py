"""Which optimizer? Muon against AdamW at the same number of samples and at the same number of seconds.

    DANLU_DATA=../shared/data python benchmarks/optimizers.py [--only TASK ...] [--table]

AdamW's losses are those of the planning benchmark's grid (seven rates a batch); Muon runs the same tasks, the same batches, at
rates by factors of two around its law. Runs are kept in optimizers_runs.jsonl, a benchmark that was stopped goes on where it
was. Seconds a step are timed in turn, one optimizer after the other, five times each; run this where nothing else runs.
Equal seconds: the loss that Muon would have reached in AdamW's seconds, by the task's own slope of log loss against log compute.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from statistics import median
from typing import Any

import planning
import planning_tasks
from planning_tasks import ROOT, Task, choices_of, opened, tasks

from danlu.planning.trials import Trial

KEPT, PAGE = ROOT / "benchmarks" / "optimizers_runs.jsonl", ROOT / "benchmarks" / "optimizers.md"
BATCHES = {
    "bytes": (8, 16, 32), "characters": (8, 16, 32), "bpe": (8, 16, 32), "code": (4, 8, 16), "grammar": (8, 16, 32),
    "image-cnn": (32,), "image-vit": (64,), "table-classify": (128,), "table-regress": (128,), "series": (64,),
    "speech": (16,), "tagging": (16,),
}  # fmt: skip
"""Those that the plan chooses, and larger ones."""
MIDDLE = {"text": 8e-3}
"""Rate in the middle, by kind of data; else that of the law of samples."""
TIMES = (0.5, 1.0, 2.0)
"""The middle rate is tried times these."""
N_TIMED, N_TURNS = 12, 5
"""Steps of a timing, and how often each optimizer is timed."""


def with_muon(task: Task) -> Task:
    """The task under Muon."""
    recipe = {**task.recipe, "optimizer": {**task.recipe["optimizer"], "kind": "muon"}}
    return dataclasses.replace(task, recipe=recipe)


def rates(task: Task) -> list[float]:
    """Muon's."""
    middle = MIDDLE.get(task.recipe["data"]["kind"], 5e-3)
    return [float(f"{middle * k:.4g}") for k in TIMES]


def step_times(task: Task, batch: int) -> tuple[float, float]:
    """(AdamW's, Muon's) median seconds a step, timed in turn."""
    from danlu.stages.train import train_step
    from danlu.training.trial import Session

    found: list[list[float]] = [[], []]
    sessions = []
    for one in (task, with_muon(task)):
        recipe, folder = opened(one)
        sessions.append(Session(recipe, folder, Trial(choices_of(one, 1e-4, batch), 0), train_step))
    for turn in range(N_TURNS + 1):
        for times, session in zip(found, sessions, strict=True):
            n = len(session.step_seconds)
            session.advance(session.step + N_TIMED)
            times += session.step_seconds[n:] if turn else []
    return median(found[0]), median(found[1])


def rows_of(task: Task) -> list[dict[str, Any]]:
    """Muon's runs of a task."""
    usual, planning_tasks.KEPT = planning_tasks.KEPT, KEPT
    try:
        muon = with_muon(task)
        return [planning_tasks.run(muon, lr, batch) for batch in BATCHES[task.name] for lr in rates(task)]
    finally:
        planning_tasks.KEPT = usual


def timed(task: Task, batch: int) -> tuple[float, float]:
    """Step times, from the file or timed now."""
    key = f"time {task.name} {batch}"
    for line in KEPT.read_text(encoding="utf-8").splitlines() if KEPT.is_file() else []:
        if (row := json.loads(line))["key"] == key:
            return row["adamw_s"], row["muon_s"]
    if planning_tasks.FROZEN["on"]:
        raise planning_tasks.NotKeptError(key)
    adamw_s, muon_s = step_times(task, batch)
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, "task": task.name, "adamw_s": adamw_s, "muon_s": muon_s}) + "\n")
    return adamw_s, muon_s


def adamw_losses(task: Task) -> dict[int, tuple[float, float]]:
    """{batch: (lowest loss of the grid, its rate)}."""
    found: dict[int, tuple[float, float]] = {}
    for lr, batch in planning.grid(task):
        row = planning_tasks.kept_runs().get(planning_tasks.key_of(task, lr, batch, 0, 1.0, {}))
        if row is not None and row["loss"] is not None:
            found[batch] = min(found.get(batch, (math.inf, 0.0)), (row["loss"], lr))
    return found


def lines(chosen: list[Task]) -> Iterator[str]:
    """The table."""
    yield "| task | batch | AdamW, best of 7 rates | Muon at rates by 2 | best | step times | at equal seconds | middle rate alone |"
    yield "|---|---|---|---|---|---|---|---|"
    for task in chosen:
        best, of_adamw, rows = planning.oracle(task), adamw_losses(task), rows_of(task)
        for batch in BATCHES[task.name]:
            mine = [row for row in rows if row["batch"] == batch]
            adamw_s, muon_s = timed(task, batch)
            base, lr = of_adamw.get(batch, (math.nan, 0.0))
            lowest, middle = min(r["loss"] or math.inf for r in mine), mine[len(mine) // 2]["loss"] or math.inf
            slope = best.slope if best is not None and best.slope < planning.FLAT else 0.0
            longer = -slope * math.log(muon_s / adamw_s)
            told = ", ".join(f"{r['lr']:g}: {r['loss']:.4g}" if r["loss"] else f"{r['lr']:g}: diverged" for r in mine)
            yield (f"| {task.name} | {batch} | {base:.4g} at {lr:g} | {told} | {math.log(lowest / base):+.1%} | "
                   f"{1e3 * adamw_s:.1f} and {1e3 * muon_s:.1f} ms | {math.log(lowest / base) + longer:+.1%} | "
                   f"{math.log(middle / base) + longer:+.1%} |")  # fmt: skip


def main() -> None:
    """Run what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--table", action="store_true", help="only write the table from what is kept")
    asked = parser.parse_args()
    planning_tasks.FROZEN["on"] = asked.table
    if not asked.table:
        for name in asked.only or BATCHES:
            rows_of(tasks()[name])
            for batch in BATCHES[name]:
                timed(tasks()[name], batch)
            print(name, flush=True)
    planning_tasks.FROZEN["on"] = True
    head = ["# Muon or AdamW?", "", *(__doc__ or "").splitlines()[4:], ""]
    head += ["Log of Muon's loss over AdamW's; below 0 Muon ends lower. One seed.", ""]
    PAGE.write_text("\n".join([*head, *lines([tasks()[n] for n in BATCHES])]) + "\n", encoding="utf-8")
    print(f"Wrote {PAGE}.")


if __name__ == "__main__":
    main()
