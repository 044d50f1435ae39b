"""benchmarks/planning.md from the kept runs: regrets of every rival, task by task, and their medians. Trains nothing."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median

import numpy as np
from planning import RIVALS, TABLE, Asked, Oracle, oracle, reached
from planning_asked import plan_of
from planning_tasks import FROZEN, NotKeptError, Task, grid, kept_runs, key_of

NOTE = """# Does planning pay?

Made by `make bench-planning` (benchmarks/planning.py) from the runs in benchmarks/planning_runs.jsonl, none left out. Twelve
development tasks; a full run of each takes 5 to 20 s on one core of a quiet machine. The oracle is the best of 7 rates x 4
batches at full budget, its two best re-run on 3 fresh seeds and the better one on 5. A rival's cost of choosing is taken from its training.
**Regret** is the extra compute it would need to reach the oracle's loss, by the oracle's own slope of log loss against log
compute; "loss" is how far its loss lies above the oracle's. All rows but two train by AdamW, by samples. "danlu as it ships" is a
recipe of data and model alone, planned for as many seconds as a run of the oracle's takes (steps timed in turn on a quiet machine):
Muon on language models, the ViT and the tagger, and the batch that ends lowest in that time, so that it sees 0.84 to 3.3 times
the samples; "by laws alone" the same with plan.budget = "prior" and all seconds in steps. Laws and constants of danlu's planner
were chosen while looking at these tasks: this is the development set. Sealed tasks: [planning_sealed.md](planning_sealed.md).
"""

SEALED_NOTE = """# Does planning pay where it was not made?

Made by `python benchmarks/planning.py --sealed` from the runs in benchmarks/planning_runs.jsonl, none left out. Six tasks that were
named (benchmarks/planning_sealed.py) before any run of them; no law, constant or default of danlu was chosen on them or changed after
them. A full run takes 20 to 30 s on one core. What the rows and columns are: [planning.md](planning.md).
"""


def write(seeds: tuple[int, ...], page: Path, chosen: dict[str, Task]) -> None:
    """The page of these tasks."""
    FROZEN["on"] = True
    rows = {task.name: losses(task, seeds) for task in chosen.values() if not task.abstain}
    first, several = seeds[0], ", ".join(map(str, seeds))
    said = (
        f"Kept runs: {len(kept_runs())}. Seeds of danlu's rows and of the same laws: {several}; of the others: {first}."
    )
    lines = [NOTE if page == TABLE else SEALED_NOTE, said, ""]
    lines += ["## The grid", "", *grid_table(chosen), ""]
    lines += ["## The oracle", "", *oracle_table(rows), "", "## Regret", "", *regret_table(rows), ""]
    lines += ["## Over the tasks", "", *summary(rows), "", "## What danlu planned", "", *plans(chosen), ""]
    page.write_text("\n".join(lines), encoding="utf-8")
    print(f"Wrote {page}.")


DECISIVE = {"danlu as it ships, equal seconds": "as it ships by laws alone, equal seconds"}
"""What a rival is held against, where it is not the same laws with 8% more steps."""
Row = tuple[Oracle | None, dict[str, float]]


def losses(task: Task, seeds: tuple[int, ...]) -> Row:
    """(the oracle, loss by rival) as far as the runs are kept."""
    try:
        best = oracle(task)
    except NotKeptError:
        best = None
    found = {}
    for name, rival in RIVALS.items():
        try:
            chosen = rival(task)
        except NotKeptError:
            continue
        if chosen is not None and (loss := mean_of_kept(task, chosen, seeds)) is not None:
            found[name] = loss
    return best, found


def mean_of_kept(task: Task, chosen: Asked, seeds: tuple[int, ...]) -> float | None:
    """Mean loss over as many of the seeds, from the first on, as are kept; None without any."""
    for n in range(len(seeds), 0, -1):
        try:
            return reached(task, chosen, seeds[:n])
        except NotKeptError:
            continue
    return None


def grid_table(chosen: dict[str, Task]) -> list[str]:
    """Best rate and lowest loss at each batch, one seed: what the laws of small models were made from. The vertex of a parabola
    through the lowest loss and its neighbours in log rate; "edge" where the lowest lies at the end of the rates."""
    kept, lines = kept_runs(), ["| task | batch | best rate | lowest loss | rates |", "|---|---|---|---|---|"]
    for task in chosen.values():
        by_batch: dict[int, list[tuple[float, float]]] = {}
        for lr, batch in grid(task):
            row = kept.get(key_of(task, lr, batch, 0, 1.0, {}))
            if row is not None:
                loss = math.inf if row["loss"] is None else row["loss"]
                by_batch.setdefault(batch, []).append((lr, loss))
        for batch, points in sorted(by_batch.items()):
            best, found = min(points, key=lambda p: p[1]), vertex(points)
            rate = f"{found:.2g}" if found else f"{best[0]:.2g} (edge)"
            lines.append(f"| {task.name} | {batch} | {rate} | {best[1]:.4g} | {len(points)} |")
    return lines


def vertex(points: list[tuple[float, float]]) -> float | None:
    """The rate where a parabola in log rate through the lowest of (rate, loss) and its neighbours is lowest; None at an edge."""
    points = sorted(p for p in points if math.isfinite(p[1]))
    i = min(range(len(points)), key=lambda k: points[k][1])
    if i in (0, len(points) - 1):
        return None
    x, y = np.log([p[0] for p in points[i - 1 : i + 2]]), [p[1] for p in points[i - 1 : i + 2]]
    a, b, _ = np.polyfit(x - x[1], y, 2)
    return math.exp(x[1] - b / (2 * a))


def oracle_table(rows: dict[str, Row]) -> list[str]:
    """One line a task."""
    lines = [
        "| task | rate | batch | loss | sd over seeds | slope of log loss | cells of 28 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (best, _) in rows.items():
        if best is None:
            lines.append(f"| {name} | grid not finished | | | | | |")
        else:
            lines.append(
                f"| {name} | {best.lr:g} | {best.batch} | {best.loss:.4f} | {best.sd:.2%} | {best.slope:.3f} | {best.n_cells} |"
            )
    return lines


def regret_table(rows: dict[str, Row]) -> list[str]:
    """Regret and loss above the oracle's, rivals down, tasks across."""
    known = {name: row for name, row in rows.items() if row[0] is not None}
    lines = [f"| rival | {' | '.join(known)} |", "|---|" + "---|" * len(known)]
    for rival in RIVALS:
        cells = [told(best, found.get(rival)) for best, found in known.values()]
        if any(cells):
            lines.append(f"| {rival} | {' | '.join(cells)} |")
    return lines


def told(best: Oracle | None, loss: float | None) -> str:
    """One cell."""
    if best is None or loss is None:
        return ""
    if math.isinf(loss):
        return "diverged"
    regret = best.regret(loss)
    above = f"{loss / best.loss - 1:+.1%} loss"
    return above if regret is None else f"{regret:+.0%} ({above})"


def summary(rows: dict[str, Row]) -> list[str]:
    """Median and 90th percentile of the regret, and duels with the decisive baseline."""
    lines = ["| rival | tasks | regret: median | 90th percentile | loss: median | better / worse than laws alone with the cost in steps |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for rival in RIVALS:
        decisive = DECISIVE.get(rival, "same laws, 8% more steps")
        pairs = [(best, found[rival], found.get(decisive)) for best, found in rows.values() if best and rival in found]
        if not pairs:
            continue
        regrets = [r for best, loss, _ in pairs if (r := best.regret(loss)) is not None]
        above = [loss / best.loss - 1 for best, loss, _ in pairs]
        duels = [loss - other for _, loss, other in pairs if other is not None]
        won = f"{sum(d < 0 for d in duels)} / {sum(d > 0 for d in duels)}" if "laws" not in rival else ""
        middle = f"{median(regrets):.0%} | {np.quantile(regrets, 0.9):.0%}" if regrets else " | "
        lines.append(f"| {rival} | {len(pairs)} | {middle} | {median(above):+.2%} | {won} |")
    return lines


def plans(chosen: dict[str, Task]) -> list[str]:
    """What the planner answered, and at what cost."""
    lines = ["| task | rate (80% interval) | batch | cost | how |", "|---|---|---|---|---|"]
    for task in chosen.values():
        try:
            row = plan_of(task, "8%")
        except NotKeptError:
            continue
        interval = f" ({row['low']:.2g} to {row['high']:.2g})" if row["low"] else ""
        lines.append(
            f"| {task.name} | {row['lr']:.3g}{interval} | {row['batch']} | {row['cost']:.1%} | {row['origin']} |"
        )
    return lines
