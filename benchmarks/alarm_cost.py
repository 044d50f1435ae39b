"""What the alarm costs a step: the same training with and without it, in turn, on the planning benchmark's tasks.

    DANLU_DATA=../shared/data python benchmarks/alarm_cost.py        writes benchmarks/alarm_cost.md

Two loops of one task train side by side in blocks of N_STEPS, first one and then the other leading; the ratio of
their processor times, block by block, with the median and its 90% interval from resampling the blocks. One thread.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from planning_tasks import ROOT, Task, choices_of, opened, tasks

from danlu.recipe import Recipe
from danlu.stages.train import train_step
from danlu.training.loop import Loop
from danlu.training.measure import scratch_run, step

N_STEPS, N_BLOCKS, WARM = 10, 24, 60
"""Steps of a block, blocks of each loop, steps before them (the alarm gathers its first samples in 40)."""
TASKS = ("bytes", "code", "image-cnn", "image-vit", "table-classify", "series", "speech", "tagging")


def seconds(loop: Loop, n: int) -> float:
    """Processor seconds of n steps."""
    began = time.process_time()
    for _ in range(n):
        step(loop, train_step)
    return time.process_time() - began


def measured(task: Task) -> tuple[float, list[float]]:
    """(seconds of a step without it, ratios with / without by block)."""
    recipe, folder = opened(task)
    choices = choices_of(task, 1e-3, task.batch)
    with ExitStack() as stack:
        loops = []
        for word in ("warn", "none"):
            raw: dict[str, Any] = {
                "name": task.name,
                "schedule": {"kind": "wsd"},
                **task.recipe,
                "train": {"on_alarm": word},
            }
            own, scratch = Recipe.model_validate(raw), Path(stack.enter_context(tempfile.TemporaryDirectory()))
            loops.append(stack.enter_context(Loop(own, scratch_run(folder, scratch, recipe, choices))))
        for loop in loops:
            seconds(loop, WARM)
        ratios, plain = [], []
        for block in range(N_BLOCKS):
            order = (0, 1) if block % 2 else (1, 0)
            took = {i: seconds(loops[i], N_STEPS) for i in order}
            ratios.append(took[0] / took[1])
            plain.append(took[1] / N_STEPS)
    return float(np.median(plain)), ratios


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """(median, 90% interval) by resampling."""
    rng, values = np.random.default_rng(0), np.array(ratios)
    draws = np.median(values[rng.integers(0, len(values), (2000, len(values)))], axis=1)
    low, high = np.quantile(draws, (0.05, 0.95))
    return float(np.median(values)), float(low), float(high)


def main() -> None:
    """Every task, then the table."""
    lines = [f"# What the alarm costs\n\n{(__doc__ or '').splitlines()[0]} `python benchmarks/alarm_cost.py` writes this page.\n",
             "| task | step without it | with / without (90%) |", "|---|---|---|"]  # fmt: skip
    for name in TASKS:
        plain, ratios = measured(tasks()[name])
        middle, low, high = interval(ratios)
        lines.append(f"| {name} | {1e3 * plain:.1f} ms | {middle:.3f} ({low:.3f} to {high:.3f}) |")
        print(lines[-1], flush=True)
    (ROOT / "benchmarks" / "alarm_cost.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
