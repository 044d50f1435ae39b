"""Does planning pay? The planner against its rivals at equal total budget, on the development tasks.

    DANLU_DATA=../shared/data make bench-planning        (or: python benchmarks/planning.py [--only TASK ...] [--seeds 1])

Every run is kept in benchmarks/planning_runs.jsonl and every plan in benchmarks/planning_plans.jsonl, so a benchmark that
was stopped goes on where it was; benchmarks/planning.md is written anew from them each time.

Oracle: the best cell of the grid (rates x batches at full budget), its two best re-run on fresh seeds. Regret: the extra
compute that a rival's configuration would need to reach the oracle's loss, by the oracle's own slope of log loss against
log compute (runs at 0.75 and 1.33 of the budget). Whatever a rival spends on choosing is taken from its training.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any

import numpy as np
import planning_rivals
from planning_asked import plan_of
from planning_sealed import sealed_tasks
from planning_tasks import (
    FROZEN,
    KEPT,
    ROOT,
    NotKeptError,
    Task,
    choices_of,
    described,
    grid,
    kept_runs,
    key_of,
    opened,
    run,
    tasks,
)

from danlu.planning.trials import Trial
from danlu.recipe import BY_ADAMW, COOLED_LONG, LONG, Recipe

TABLE = ROOT / "benchmarks" / "planning.md"
SEALED = ROOT / "benchmarks" / "planning_sealed.md"
FRESH = (1, 2, 3, 4, 5)
"""Seeds of the oracle's second look; the grid ran on 0."""
FIRST = 3
"""Of them, those of both of the two best cells; the better one runs on all."""
SHARES = (0.75, 4 / 3)
FLAT = -0.01
"""A slope of log loss by log compute above this is flat: more compute does not help, and regret is told as loss alone."""
ENOUGH = 21
"""Cells of the grid before an oracle is named: three of the four batches."""
CHOOSING = 0.08
"""What searches may spend."""


@dataclass(frozen=True)
class Asked:
    """A configuration that a rival trains, with the share of the budget left for it."""

    lr: float
    batch: int
    share: float = 1.0
    rival: str = ""
    note: str = ""
    decay: float | None = None
    """Weight decay under the usual optimizer, where it is that."""


def n_tokens(task: Task) -> float:
    """D in tokens of a language task."""
    return float(task.n_samples * task.recipe["model"]["context"])


def is_text(task: Task) -> bool:
    """Whether laws for language models apply."""
    return bool(task.recipe["data"]["kind"] == "text")


def n_hidden(task: Task) -> int:
    """Parameters without embeddings and head."""
    recipe, _ = opened(task)
    settings: Any = recipe.model
    return int(settings.shape(256).n_hidden_parameters)


def defaults(task: Task) -> Asked:
    """What a newcomer types: torch.optim.AdamW's rate, batches of 32."""
    return Asked(1e-3, 32)


def step_law(task: Task) -> Asked | None:
    """Li 2025, 2503.04715, equation 1, as it stands, outside the range it was fitted on."""
    if not is_text(task):
        return None
    d = n_tokens(task)
    return Asked(
        1.79 * n_hidden(task) ** -0.713 * d**0.307, max(1, round(0.58 * d**0.571 / task.recipe["model"]["context"]))
    )


def nanochat(task: Task) -> Asked | None:
    """nanochat's dial: B = 2^19 (D / D_ref)^0.383 tokens to a power of two, the rate by sqrt(B / 2^19) from AdamW's 3e-3
    (its matrices train with Muon; AdamW is used here for every rival). D_ref = 1.4e9: 12 tokens a parameter at depth 12."""
    if not is_text(task):
        return None
    tokens = 2.0 ** round(math.log2(2**19 * (n_tokens(task) / 1.4e9) ** 0.383))
    batch = max(1, round(min(tokens, n_tokens(task) / 50) / task.recipe["model"]["context"]))
    return Asked(3e-3 * math.sqrt(batch * task.recipe["model"]["context"] / 2**19), batch)


def range_test(task: Task) -> Asked:
    """Smith 2017, 1506.01186 as fast.ai runs it: 100 steps from 1e-6 to 1, a tenth of the rate of the lowest smoothed loss."""
    row = kept(task, "range-test", lambda: swept(task))
    return Asked(row["lr"], task.batch, max(0.5, 1 - row["n_steps"] * task.batch / task.n_samples), note="range test")


def swept(task: Task) -> dict[str, Any]:
    """The sweep itself; the usual batch."""
    session, n = opened_session(task, 1e-6, task.batch), min(100, task.n_samples // task.batch // 4)
    smoothed, lowest, best = 0.0, math.inf, 1e-6
    for step in range(n):
        rate = 1e-6 * (1e6 ** (step / (n - 1)))
        loss, _ = session.update(rate)
        smoothed = 0.9 * smoothed + 0.1 * loss
        corrected = smoothed / (1 - 0.9 ** (step + 1))
        if session.diverged or (step > 5 and corrected > 4 * lowest):
            break
        if corrected < lowest:
            lowest, best = corrected, rate
    return {"lr": best / 10, "n_steps": step + 1}


def random_search(task: Task, n: int = 4) -> Asked:
    """n random cells (rate log-uniform over the grid's range, a batch of the grid's), each trained on CHOOSING / n of the
    budget, judged by the tail of their training loss."""
    rng = random.Random(f"{task.name} random")
    cells = [drawn(task, rng) for _ in range(n)]
    found = [(short(task, lr, batch, CHOOSING / n), lr, batch) for lr, batch in cells]
    _, lr, batch = min(found)
    return Asked(lr, batch, 1 - CHOOSING)


def halving(task: Task) -> Asked:
    """Successive halving (Jamieson & Talwalkar 2016, 1502.07943): 8 random cells, half kept, twice the budget, three rungs."""
    rng = random.Random(f"{task.name} halving")
    cells, share = [drawn(task, rng) for _ in range(8)], CHOOSING / 3 / 8
    while len(cells) > 1:
        cells = sorted(cells, key=lambda c: short(task, *c, share))[: len(cells) // 2]
        share *= 2
    return Asked(*cells[0], 1 - CHOOSING)


def drawn(task: Task, rng: random.Random) -> tuple[float, int]:
    """A random cell."""
    rates, batches = zip(*grid(task), strict=True)
    return float(f"{math.exp(rng.uniform(math.log(min(rates)), math.log(max(rates)))):.3g}"), rng.choice(
        sorted(set(batches))
    )


def short(task: Task, lr: float, batch: int, share: float) -> float:
    """Tail of the training loss of a short decayed run."""
    row = run(task, lr, batch, 0, share)
    curve = [loss for _, loss in row["curve"]]
    return mean(curve[-max(1, len(curve) // 5) :]) if row["loss"] is not None and curve else math.inf


def law_only(task: Task) -> Asked:
    """danlu with plan.budget = "prior": the same laws, and what planning would cost spent on steps."""
    row = plan_of(task, "prior")
    return Asked(row["lr"], row["batch"])


def planned(task: Task) -> Asked:
    """danlu plan, its own cost taken from the run."""
    row = plan_of(task, "8%")
    return Asked(row["lr"], row["batch"], 1 - row["cost"], note=row["origin"])


def wrong_prior(task: Task, factor: float) -> Asked:
    """danlu plan whose law is wrong by a factor."""
    row = plan_of(task, "8%", factor)
    return Asked(row["lr"], row["batch"], 1 - row["cost"], note=row["origin"])


def shipped(task: Task, budget: str = "8%") -> Asked | None:
    """danlu with data and model alone: its usual optimizer, batch and rate planned for as many seconds as a run of the oracle's
    takes (steps of both timed in turn), its own cost taken from them; with a budget of "prior" all seconds go into steps."""
    from optimizers import timed

    if (best := oracle(task)) is None:
        return None
    seconds = task.n_samples * timed(task, best.batch)[0] / best.batch
    row = plan_of(as_shipped(task), budget, length=f"{seconds:.3g} s")
    step_s = timed(task, row["batch"])[usual(task) == "muon"]
    cost = 0.0 if budget == "prior" else row["cost"]
    n_samples = seconds * (1 - cost) / step_s * row["batch"]
    return Asked(row["lr"], row["batch"], n_samples / task.n_samples, note=row["origin"], decay=row["decay"])


def usual(task: Task) -> str:
    """The optimizer that danlu takes where none is named."""
    return "adamw" if task.recipe["model"]["kind"] in BY_ADAMW else "muon"


def as_shipped(task: Task, **given: Any) -> Task:
    """The task without its optimizer, or with this one's settings, and with the model's usual cool-down."""
    rest = {name: section for name, section in task.recipe.items() if name != "optimizer"}
    if task.recipe["model"]["kind"] in COOLED_LONG:
        rest["schedule"] = {"kind": "wsd", "decay": LONG}
    return replace(task, name=f"{task.name}.shipped", recipe=rest | ({"optimizer": given} if given else {}))


RIVALS: dict[str, Callable[[Task], Asked | None]] = {
    "danlu plan": planned,
    "danlu as it ships, equal seconds": shipped,
    "as it ships by laws alone, equal seconds": lambda task: shipped(task, "prior"),
    "same laws, 8% more steps": law_only,
    "framework defaults": defaults,
    "Step Law": step_law,
    "nanochat rule": nanochat,
    "range test": range_test,
    "Prodigy": lambda task: Asked(1.0, task.batch, rival="prodigy"),
    "schedule-free AdamW": lambda task: Asked(2.5e-3, task.batch, rival="schedule-free"),
    "random search": random_search,
    "successive halving": halving,
    "law wrong by 8 (high)": lambda task: wrong_prior(task, 8.0),
    "law wrong by 8 (low)": lambda task: wrong_prior(task, 1 / 8),
}


def opened_session(task: Task, lr: float, batch: int, seed: int = 0, share: float = 1.0, schedule: Any = None) -> Any:
    """A session of the task."""
    from danlu.stages.train import train_step
    from danlu.training.trial import Session

    recipe, folder = opened(task)
    if schedule is not None:
        recipe = Recipe.model_validate({"name": task.name, **task.recipe, "schedule": schedule})
    return Session(recipe, folder, Trial(choices_of(task, lr, batch, share), seed), train_step)


def rival_run(task: Task, asked: Asked, seed: int) -> dict[str, Any]:
    """A whole run of an optimizer that is no member of the shelf."""
    from danlu.planning.trials import Outcome

    is_free = asked.rival == "schedule-free"
    session = opened_session(
        task, asked.lr, asked.batch, seed, asked.share, {"kind": "constant", "warmup": "5%"} if is_free else None
    )
    decay = task.recipe["optimizer"]["weight_decay"]
    kind = planning_rivals.ScheduleFree if is_free else planning_rivals.Prodigy
    session.parts.optimizer = kind(lr=asked.lr, weight_decay=decay).build(session.parts.model)
    n = session.choices.n_steps
    session.advance(n)
    if is_free:
        planning_rivals.put_average(session.parts.optimizer)
    looks = () if session.diverged else (session.look(metrics=True),)
    step_s = median(session.step_seconds)
    outcome = Outcome(
        tuple(session.losses), tuple(session.grad_norms), looks, sum(session.step_seconds), step_s, session.diverged
    )
    return described(outcome, n)


def kept(task: Task, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row by a name of its own, from the file or made now."""
    key = key_of(task, 0.0, 0, 0, 1.0, {"rival": name})
    if (found := kept_runs().get(key)) is not None:
        return found
    if FROZEN["on"]:
        raise NotKeptError(task.name)
    row = {"key": key, "task": task.name, "rival": name, **make()}
    with KEPT.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(row) + "\n")
    return row


def reached(task: Task, asked: Asked, seeds: tuple[int, ...]) -> float:
    """Mean validation loss over seeds; infinite when one diverged."""
    losses = []
    if asked.decay is not None:
        task = as_shipped(task, kind=usual(task), weight_decay=asked.decay)
    for seed in seeds:
        if asked.rival:
            name = f"{asked.rival} {asked.lr:.4g} {asked.batch} {asked.share:.4g} {seed}"
            row = kept(task, name, lambda seed=seed: rival_run(task, asked, seed))  # type: ignore[misc]
        else:
            row = run(task, float(f"{asked.lr:.4g}"), asked.batch, seed, float(f"{asked.share:.4g}"))
        losses.append(math.inf if row["loss"] is None else row["loss"])
    return mean(losses)


@dataclass(frozen=True)
class Oracle:
    """The best that the grid holds."""

    lr: float
    batch: int
    loss: float
    sd: float
    """Of the loss over seeds, relative."""
    slope: float
    """d log loss / d log compute at its configuration."""
    n_cells: int
    """Of the grid that are known."""

    def regret(self, loss: float) -> float | None:
        """Extra compute that a configuration of this loss needs; None where compute does not help."""
        if self.slope > FLAT or not math.isfinite(loss):
            return None if math.isfinite(loss) else math.inf
        return math.exp(min(5.0, math.log(loss / self.loss) / -self.slope)) - 1


def oracle(task: Task) -> Oracle | None:
    """From the grid's rows, once enough are there."""
    found = kept_runs()
    rows = [row for lr, batch in grid(task) if (row := found.get(key_of(task, lr, batch, 0, 1.0, {}))) is not None]
    if len(rows) < ENOUGH:
        return None
    ranked = sorted((row for row in rows if row["loss"] is not None), key=lambda row: row["loss"])[:2]
    again = [[run(task, row["lr"], row["batch"], seed)["loss"] for seed in FRESH[:FIRST]] for row in ranked]
    i = min(range(len(again)), key=lambda k: mean(again[k]))
    lr, batch = ranked[i]["lr"], ranked[i]["batch"]
    losses = again[i] + [run(task, lr, batch, seed)["loss"] for seed in FRESH[FIRST:]]
    ends = [run(task, lr, batch, FRESH[0], share)["loss"] for share in SHARES]
    slope = math.log(ends[1] / ends[0]) / math.log(SHARES[1] / SHARES[0])
    sd = float(np.std(losses, ddof=1)) / mean(losses)
    return Oracle(lr, batch, mean(losses), sd, slope, len(rows))


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rivals", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only write the table from what is kept")
    parser.add_argument("--sealed", action="store_true", help="the sealed tasks, in a table of their own")
    asked = parser.parse_args()
    chosen_tasks = sealed_tasks() if asked.sealed else tasks()
    seeds = FRESH[: asked.seeds]
    for task in chosen_tasks.values():
        if asked.table or task.abstain or (asked.only and task.name not in asked.only):
            continue
        for lr, batch in list(grid(task))[:ENOUGH]:
            run(task, lr, batch)
        best = oracle(task)
        print(f"{task.name}: oracle {best}", flush=True)
        for name, rival in RIVALS.items():
            if (asked.rivals and name not in asked.rivals) or best is None or (chosen := rival(task)) is None:
                continue
            loss = reached(task, chosen, seeds)
            print(f"  {name:28} {chosen} loss {loss:.5g} regret {best.regret(loss)}", flush=True)
    for task in chosen_tasks.values():
        for lr, batch in () if asked.table or (asked.only and task.name not in asked.only) else grid(task):
            run(task, lr, batch)
    from planning_table import write

    write(seeds, SEALED if asked.sealed else TABLE, chosen_tasks)


if __name__ == "__main__":
    main()
