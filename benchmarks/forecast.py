"""How well is a run's final loss told when a tenth of it is done? Replays logged runs; writes forecast.md.

    DANLU_DATA=../shared/data python benchmarks/forecast.py collect [TASK ...]   prefixes with cooled copies -> forecast_runs.jsonl
    python benchmarks/forecast.py                                                replay them -> forecast.md

A row is one run of planning_tasks.py: the training losses of its first part, copies of it that were cooled down there
(by the same Session as in planning), and how the whole run went on, as planning_runs.jsonl has it. A copy leaves no
trace, so the prefix is that of the whole run. What is calibrated is calibrated on the other tasks.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from danlu.optim import SCHEDULES
from danlu.planning import curves, ends, ensemble, length
from danlu.planning.curves import Prior
from danlu.planning.forks import MIN_STEPS
from danlu.planning.length import Forecast
from danlu.planning.prediction import Z80
from danlu.planning.seen import Earlier, ForkSeen, Seen, Setting

HERE = Path(__file__).parent
KEPT, PAGE = HERE / "forecast_runs.jsonl", HERE / "forecast.md"
FACTORS, HORIZONS, COOL = (2.0, 1.0, 0.5), (0.05, 0.1), 0.1
"""Rates as multiples of the task's; ends of the copies as shares of the run; share of a copy that cools."""
SANE, SURE = 0.15, 0.03
HEAD = (
    "| method | told | median error | 90th percentile | 80% interval holds | rescaled on the other tasks |",
    "|---|---|---|---|---|---|",
)
Row = dict[str, Any]
Told = tuple[float, float]
"""(log of the final loss, its standard deviation)."""


def collect(names: Sequence[str], horizons: Sequence[float] = HORIZONS) -> None:
    """Train the prefixes that are not kept yet, with their copies."""
    import planning_tasks

    known = {(row["task"], row["lr"], len(row["forks"])) for row in rows()}
    for factor in FACTORS:
        for task in planning_tasks.tasks().values():
            lr = float(f"{task.lr * factor:.4g}")
            if (not names or task.name in names) and (task.name, lr, len(horizons)) not in known:
                with KEPT.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(prefix(task, lr, horizons)) + "\n")


def prefix(task: Any, lr: float, horizons: Sequence[float]) -> Row:
    """One run up to its last copy, and the rest of it from planning_runs.jsonl (trained now where it is not there)."""
    import planning_tasks

    from danlu.planning.trials import Trial
    from danlu.stages.train import train_step
    from danlu.training.trial import Session

    whole = planning_tasks.run(task, lr, task.batch)
    recipe, folder = planning_tasks.opened(task)
    choices = planning_tasks.choices_of(task, lr, task.batch)
    session = Session(recipe, folder, Trial(choices), train_step)
    forks = []
    for share in horizons:
        end = max(3, round(share * choices.n_steps))
        n_cool = max(1, round(COOL * end))
        session.advance(end - n_cool)
        before, cooled = session.look().loss, session.cooled(n_cool).loss
        forks.append({"step": end - n_cool, "n_cool": n_cool, "loss": cooled, "before": before})
    train = session.card.splits["train"]
    session.close()
    return {
        "task": task.name, "lr": lr, "batch": task.batch, "n_steps": choices.n_steps, "forks": forks,
        "losses": [round(x, 4) for x in session.losses], "looks": whole["looks"],
        "n_train": train.n_samples or train.n_tokens, "context": getattr(recipe.model, "context", 1),
    }  # fmt: skip


def rows() -> list[Row]:
    """Every kept row."""
    return [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()] if KEPT.is_file() else []


def best(row: Row) -> float:
    """Loss of the checkpoint that evaluation loads: of the best look."""
    return float(min(loss for _, loss in row["looks"]))


def setting_of(row: Row) -> Setting:
    """All runs are by AdamW."""
    return Setting("adamw", row["lr"], row["batch"])


def seen_of(row: Row, at: float, others: Sequence[Row] = ()) -> Seen:
    """What the run had shown at a share of its length; `others` are the earlier runs."""
    n_steps, schedule = row["n_steps"], SCHEDULES["wsd"]()
    rates = tuple(schedule.lr_at(step, n_steps, 1.0) for step in range(n_steps))
    ends = sorted(row["forks"], key=lambda f: abs(math.log((f["step"] + f["n_cool"]) / (at * n_steps))))
    last = ends[0]
    first = min(row["forks"], key=lambda f: abs(math.log((f["step"] + f["n_cool"]) / (0.5 * at * n_steps))))
    forks = tuple(ForkSeen(f["step"], f["n_cool"], f["loss"], 0.0, 0.0, f["before"]) for f in (first, last))
    shown = last["step"]
    told = [Earlier.of(f"{o['lr']:g}", setting_of(o), o["looks"], o["n_steps"], shown / n_steps) for o in others]
    earlier = tuple(run for run in told if run is not None)
    losses = tuple(row["losses"][:shown])
    return Seen(setting_of(row), rates, losses, forks, row["batch"] * row["context"], row["n_train"], 1.0, earlier)


def power_law(seen: Seen) -> Told:
    """Rival: E + B n^-b through the training losses so far, read off at the run's end."""
    steps, hot, sd = ensemble.stretches(np.asarray(seen.losses), np.asarray(seen.rates))
    if len(steps) < 3:
        return math.log(float(hot[-1])) if len(hot) else math.nan, 0.0
    grid, scale = tuple(np.linspace(0.05, 2.0, 40)), float(hot[-1])
    prior = Prior(grid, [1.0] * len(grid), np.full(2, scale), np.full(2, 10 * scale), (True, True))
    law = curves.fitted(curves.power_design, steps[:, None], hot, sd * hot, prior)
    mean = float(law.at(np.array([[float(seen.n_steps)]]))[0][0])
    return math.log(max(mean, 0.01 * scale)), 0.0


def last_copy(seen: Seen) -> Told:
    """Rival: the loss of the last cooled copy."""
    return math.log(seen.forks[-1].loss or math.nan), 0.0


def danlu(seen: Seen) -> Told | None:
    """Ours; None for "don't know"."""
    if len(seen.losses) < 0.8 * MIN_STEPS:
        return None
    found: Forecast = length.forecast(seen)
    told = found.predictions[0]
    if told.value is None or told.high80 is None:
        return None
    return math.log(told.value), math.log(told.high80 / told.value) / Z80


def before_the_run(seen: Seen) -> Told | None:
    """Ours at plan time."""
    found = length.expected_at_plan(seen.setting, seen.earlier)
    if not found or found[0].value is None or found[0].high80 is None:
        return None
    return math.log(found[0].value), math.log(found[0].high80 / found[0].value) / Z80


def scaled(errors: Sequence[tuple[str, float, float]], task: str) -> float:
    """Factor for the standard deviations of a task: the 80% quantile of |error| / sd over the other tasks, over Z80."""
    other = [abs(e) / sd for name, e, sd in errors if name != task]
    return float(np.quantile(other, min(1.0, 0.8 * (1 + 1 / len(other))))) / Z80 if len(other) >= 5 else 1.0


def summary(name: str, errors: Sequence[tuple[str, float, float]], n_asked: int) -> str:
    """A line of the table."""
    if not errors:
        return f"| {name} | 0 of {n_asked} | | | | |"
    sizes = [abs(e) for _, e, _ in errors]
    inside = [abs(e) <= Z80 * sd for _, e, sd in errors if sd]
    held = [abs(e) <= Z80 * sd * scaled(errors, task) for task, e, sd in errors if sd]
    cover = f"{np.mean(inside):.0%} | {np.mean(held):.0%}" if inside else "|"
    return f"| {name} | {len(errors)} of {n_asked} | {median(sizes):.1%} | {np.quantile(sizes, 0.9):.1%} | {cover} |"


def errors_of(
    kept: Sequence[Row], at: float, method: Callable[[Seen], Told | None], with_earlier: bool = False
) -> Iterator[tuple[Row, float | None, float]]:
    """(row, error of the log loss or None, its standard deviation) of every run."""
    whole = planning_rows() if with_earlier else []
    for row in kept:
        same = [o for o in whole if all(o[k] == row[k] for k in ("task", "batch", "n_steps"))]
        others = [o for o in same if o["lr"] != row["lr"]]
        told = method(seen_of(row, at, others))
        yield row, None if told is None else told[0] - math.log(best(row)), told[1] if told else 0.0


def from_others(kept: Sequence[Row], names: Sequence[str], n_earlier: int) -> list[tuple[str, float, float]]:
    """(task, error of the log of the end, its standard deviation) of every run at a sane rate (its end within SANE of the best
    of its batch), told from as many others of its task, drawn at random."""
    rng, found = np.random.default_rng(0), []
    for name in names:
        runs = [(setting_of(row), math.log(best(row))) for row in kept if row["task"] == name]
        for at, end in runs:
            others = [(s, e) for s, e in runs if s != at]
            if end > min(e for s, e in runs if s.batch == at.batch) + SANE:
                continue
            drawn = [others[i] for i in rng.permutation(len(others))[:n_earlier]]
            mean, sd = ends.expected(at, [Earlier("", s, 0.0, e) for s, e in drawn])
            found.append((name, mean - end, sd))
    return found


def chance(kept: Sequence[Row], names: Sequence[str]) -> list[tuple[str, float, float]]:
    """The same told by the mean of the other seeds of the very same run, where there are three or more: what is left is chance."""
    found = []
    for name in names:
        by_cell: dict[Setting, list[float]] = {}
        for row in kept:
            if row["task"] == name:
                by_cell.setdefault(setting_of(row), []).append(math.log(best(row)))
        for seeds in (v for v in by_cell.values() if len(v) >= 3):
            found += [(name, (sum(seeds) - end) / (len(seeds) - 1) - end, 0.0) for end in seeds]
    return found


def before_page() -> list[str]:
    """The part of the page on what is said before a run."""
    import planning_sealed
    import planning_tasks

    whole, sealed = planning_rows(), list(planning_sealed.sealed_tasks())
    every = planning_rows(all_seeds=True)
    unforeseen = {"tiny", "grokking", *sealed}
    development = [name for name in planning_tasks.tasks() if name not in unforeseen]
    lines = ["", "## Before a run, from earlier ones", "",
             "Each run of the grids of planning.md and planning_sealed.md whose end is within 15% of the best of its batch, told"
             " from other runs of its task, drawn at random, of other rates or batches (planning/ends.py). Its constants were chosen"
             " on the development tasks. Chance: the mean of the other seeds of the very same run tells it.", "",
             *HEAD]  # fmt: skip
    for title, names in (("development", development), ("sealed", sealed)):
        for n_earlier in (1, 2, 6, 27):
            told = from_others(whole, names, n_earlier)
            wide = [t for t in told if Z80 * t[2] <= length.TOO_WIDE]
            lines.append(summary(f"{title}, {n_earlier} earlier run{'s' * (n_earlier > 1)}", wide, len(told)))
            lines.append(summary("of these, told to within 3%", sure(wide), len(told)))
        errors = chance(every, names)
        lines.append(summary(f"{title}, chance", errors, len(errors)))
    return lines


def sure(errors: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Those whose 80% interval is 3% or less to either side."""
    return [one for one in errors if Z80 * one[2] <= SURE]


def planning_rows(all_seeds: bool = False) -> list[Row]:
    """Whole runs of planning_tasks.py at seed 0 (no rivals'), as earlier runs."""
    import planning_tasks

    found = [r for r in planning_tasks.kept_runs().values() if "settings" in r and r["loss"] and r["looks"]]
    return [r for r in found if r["share"] == 1.0 and not (r["seed"] and not all_seeds) and not r["settings"]]


def page(kept: Sequence[Row]) -> str:
    """The whole of forecast.md."""
    lines = [
        "# Where will the loss end? Told when a tenth of the run is done",
        "",
        f"{len(kept)} runs of {len({r['task'] for r in kept})} tasks (benchmarks/planning_tasks.py), 125 to 4,000 steps each. The error is"
        " that of the log of the validation loss of the best look, which is what evaluation loads. Written by benchmarks/forecast.py.",
        "",
        *HEAD,
    ]
    methods: list[tuple[str, Callable[[Seen], Told | None], bool]] = [
        ("danlu", danlu, False),
        ("danlu, with earlier runs of the same model and data", danlu, True),
        ("power law on the prefix", power_law, False),
        ("last cooled copy", last_copy, False),
    ]
    shares = sorted({round((f["step"] + f["n_cool"]) / r["n_steps"], 2) for r in kept for f in r["forks"]})
    by_task: dict[str, dict[str, list[str]]] = {}
    found = [(row["task"], e, sd) for row, e, sd in errors_of(kept, 0.1, before_the_run, True) if e is not None]
    lines.append(summary("danlu, earlier runs alone, before the run", found, len(kept)))
    for at in (s for s in (0.1, 0.2, 0.3, 0.5) if s in shares):
        having = [r for r in kept if max(f["step"] + f["n_cool"] for f in r["forks"]) >= 0.95 * at * r["n_steps"]]
        for name, method, with_earlier in methods:
            errors = list(errors_of(having, at, method, with_earlier))
            told = [(row["task"], e, sd) for row, e, sd in errors if e is not None and math.isfinite(e)]
            lines.append(summary(f"{name}, at {at:.0%}", told, len(errors)))
            if with_earlier:
                lines.append(summary("of these, told to within 3%", sure(told), len(errors)))
            for row, e, sd in errors if at == 0.1 else ():
                cell = "don't know" if e is None else f"{e:+.1%}" + (f" ± {Z80 * sd:.1%}" if sd else "")
                by_task.setdefault(row["task"], {}).setdefault(name, []).append(cell)
    lines += ["", "## Task by task, at 10%", "", "Rates 2, 1 and 0.5 times the task's; ± is the 80% interval.", ""]
    lines += ["| task | " + " | ".join(name for name, *_ in methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for task, cells in by_task.items():
        lines.append(f"| {task} | " + " | ".join("; ".join(cells.get(name, [])) for name, *_ in methods) + " |")
    return "\n".join([*lines, *before_page()]) + "\n"


def main() -> None:
    """Collect, or replay."""
    sys.path.insert(0, str(HERE))
    if sys.argv[1:2] == ["collect"]:
        collect(sys.argv[2:])
        return
    text = page(rows())
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
