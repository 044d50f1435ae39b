"""The gradient noise scale, checked: where its truth is known, on the development tasks, and against the oracle's grid.

    python benchmarks/noise_scale.py quadratic                         a quadratic through danlu's own train_step
    DANLU_DATA=../shared/data python benchmarks/noise_scale.py tasks [--only TASK ...]   short sessions, measured
    DANLU_DATA=../shared/data python benchmarks/noise_scale.py branches                  critical batch by branches
    python benchmarks/noise_scale.py rule [--runs planning_runs.jsonl]                   the rule against the grid
Each part keeps its rows in benchmarks/noise_scale.json; every call writes benchmarks/noise_scale.md anew from them.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import planning_tasks
import torch
from torch import Tensor, nn

from danlu.base.contracts import Batch
from danlu.optim import OPTIMIZERS
from danlu.parallel.mesh import Alone
from danlu.planning.batch_size import nearest
from danlu.planning.critical_batch import critical_batch
from danlu.planning.distributions import t_quantile
from danlu.planning.noise_scale import ADAPTIVE, PLAIN, GradientSample, NoiseScale, jackknife, noise_scale
from danlu.planning.trials import Trial
from danlu.stages.train import train_step
from danlu.training.branches import Trunk
from danlu.training.gradient_noise import NoiseMeter, measure
from danlu.training.trial import Session
from danlu.training.update import Clock, Parts

RESULT = Path(__file__).with_suffix(".md")
KEPT = RESULT.with_suffix(".json")
DIM, N_SIMULATIONS = 50, 500
SHARE = 0.1
"""Of a full run: the session whose second half is measured."""


class Point(nn.Module):
    """A point x whose samples z have loss |x - z|^2 / 2 weighted by the curvature h: gradient h (x - z)."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(start.clone())

    def forward(self, batch: Batch) -> Tensor:
        """(B, DIM) distances."""
        return self.x - batch.tensors["z"]


class Quadratic:
    """Sum over samples of h (x - z)^2 / 2."""

    def __init__(self, curvature: Tensor) -> None:
        self.curvature = curvature

    def loss_sum(self, output: Tensor, batch: Batch) -> Tensor:
        """One number."""
        return (self.curvature * output.square()).sum() / 2


def quadratic(truth: float, n_steps: int, n_micro: int, micro: int, metric: str) -> dict[str, Any]:
    """Bias and coverage over N_SIMULATIONS of a known noise scale, through train_step and NoiseMeter."""
    curvature = torch.arange(1, DIM + 1, dtype=torch.float32) ** -0.5
    start = torch.ones(DIM)
    v = curvature.flip(0).square()  # any second moment will do: P = 1 / sqrt(v)
    weight = curvature.square() * (1 / v.sqrt() if metric == ADAPTIVE else 1.0)
    sd = math.sqrt(truth * float((weight * start.square()).sum()) / float(weight.sum()))  # tr(P Sigma) / G'PG = truth
    model, rng = Point(start), torch.Generator().manual_seed(0)
    optimizer = OPTIMIZERS["adamw"](lr=0.0 + 1e-9, weight_decay=0.0).build(model)
    parts = Parts(model, Quadratic(curvature), optimizer, Alone())  # type: ignore[arg-type]
    scales: list[NoiseScale] = []
    plain_jackknife = 0
    t = t_quantile(0.975, n_steps - 1)
    for _ in range(N_SIMULATIONS):
        samples: list[GradientSample] = []
        for _ in range(n_steps):
            with torch.no_grad():
                model.x.copy_(start)
                optimizer.tensors()["x/square"].copy_(v)
            batches = [Batch({"z": sd * torch.randn(micro, DIM, generator=rng)}, micro) for _ in range(n_micro)]
            meter = NoiseMeter(parts, 10**12)
            parts.after_backward = meter.see
            train_step(parts, batches, 1e-9, lambda loss, norm: "skip", Clock())
            samples.append(meter.samples()[metric])
        scales.append(noise_scale(samples, metric=metric))
        value, error = jackknife(np.array([[s.noise, s.signal] for s in samples]))
        plain_jackknife += abs(value - truth) <= t * error
    values = np.array([s.value for s in scales if math.isfinite(s.value)])
    covered = np.mean([s.low <= truth <= s.high for s in scales])
    return {
        "truth": truth, "n_steps": n_steps, "n_micro": n_micro, "micro": micro, "metric": metric,
        "bias": float(values.mean() / truth - 1), "median": float(np.median(values) / truth - 1),
        "covered": float(covered), "jackknife": plain_jackknife / N_SIMULATIONS,
        "open": float(np.mean([math.isinf(s.high) for s in scales])),
    }  # fmt: skip


def all_quadratics() -> list[dict[str, Any]]:
    """Cases from well determined to lost in noise."""
    cases = [(20, 20, 4, 8), (60, 20, 4, 8), (60, 10, 8, 4), (100, 40, 4, 8), (400, 40, 4, 16), (2000, 20, 4, 8)]
    return [quadratic(*case, metric) for metric in (PLAIN, ADAPTIVE) for case in cases]


def measured(task: planning_tasks.Task, batch: int, lr: float, share: float) -> dict[str, Any]:
    """Both noise scales over the second half of a short decayed session."""
    recipe, folder = planning_tasks.opened(task)
    began = time.process_time()
    session = Session(recipe, folder, Trial(planning_tasks.choices_of(task, lr, batch, share)), train_step)
    found = measure(session, session.choices.n_steps)
    session.close()
    half = found[len(found) // 2 :]
    scales = {name: noise_scale([f[name] for f in half if name in f], metric=name) for name in (PLAIN, ADAPTIVE)}
    rows = {name: [finite(s.value), s.low, finite(s.high)] for name, s in scales.items()}
    return {"task": task.name, "batch": batch, "lr": lr, "share": share, "n_steps": len(half), **rows,
            "cpu_s": round(time.process_time() - began, 1)}  # fmt: skip


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def all_tasks(only: Sequence[str]) -> list[dict[str, Any]]:
    """Each development task at its usual batch and rate; those measured before are kept."""
    known = {row["task"]: row for row in kept().get("tasks", [])}
    for name, task in planning_tasks.tasks().items():
        if name in only or (not only and name not in known):
            known[name] = measured(task, task.batch, task.lr, SHARE)
            print(known[name], flush=True)
    return list(known.values())


def all_branches() -> dict[str, Any]:
    """bytes: from a twentieth of a run at an eighth of the usual batch, 2, 4, 8 and 16 times the batch."""
    task = planning_tasks.tasks()["bytes"]
    recipe, folder = planning_tasks.opened(task)
    choices = planning_tasks.choices_of(task, task.lr / 2, 4)
    began = time.process_time()
    factors = (1, 2, 4, 8, 16)
    trunk = Trunk(recipe, folder, Trial(choices), train_step, 128, max(factors))
    found = [trunk.branch(k, 128) for k in factors]
    critical = critical_batch(found)
    return {
        "task": task.name, "start": 128, "n_samples": 128 * 4, "value": critical.value, "low": critical.low,
        "high": finite(critical.high), "costs": [list(c) for c in critical.costs], "cpu_s": round(time.process_time() - began, 1),
    }  # fmt: skip


def rule(path: Path, scales: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Regret of each way to choose a batch against the best one tried, all at their best rate, for the same samples.

    SHARE is chosen on all other tasks (leave one out). The grid tries few batches, so a rule is given the nearest of them.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cells: dict[tuple[str, float], dict[int, float]] = {}
    for r in rows:
        if r["share"] == 1.0 and not r["settings"] and r["seed"] == 0 and r["loss"] is not None:
            key = (r["task"], float(f"{r['n_steps'] * r['batch']:.1g}"))
            own = cells.setdefault(key, {})
            own[r["batch"]] = min(own.get(r["batch"], math.inf), r["loss"])
    tried = {key: own for key, own in cells.items() if len(own) > 1 and key[0] not in ("tiny", "grokking")}
    known = {row["task"]: row[ADAPTIVE][0] for row in scales}
    shares = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0]

    def regret(key: tuple[str, float], wanted: float) -> float:
        own = tried[key]
        return own[nearest(wanted, sorted(own))] / min(own.values()) - 1

    found = []
    for key, own in tried.items():
        others = [k for k in tried if k[0] != key[0]]
        share = min(shares, key=lambda c: sum(regret(k, c * known[k[0]]) for k in others))
        found.append({
            "task": key[0], "n_samples": key[1], "noise_scale": known[key[0]], "batches": sorted(own),
            "best": min(own, key=lambda b: own[b]), "share": share, "by_scale": regret(key, share * known[key[0]]),
            "by_updates": regret(key, key[1] / 800), "largest": regret(key, max(own)),
        })  # fmt: skip
    return found


def kept() -> dict[str, Any]:
    """What earlier calls found."""
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}


def number(value: float | None) -> str:
    """Three digits, or that there is none."""
    return "none" if value is None else f"{value:.3g}"


def table(names: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    head = names.split(", ")
    return ["", *(f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows))]


def page(found: dict[str, Any]) -> str:
    """Every table there is."""
    lines = ["# The gradient noise scale", ""]
    if "quadratic" in found:
        lines += [f"A quadratic in {DIM} dimensions through `train_step`, {N_SIMULATIONS} simulations a row; 95% intervals. Bias is that "
                  "of the mean where a value was found; open: intervals without an upper end."]  # fmt: skip
        names = "length, truth, updates, micro-batches, bias, Fieller covers, jackknife covers, open"
        lines += table(names, [
            [r["metric"], f"{r['truth']}", f"{r['n_steps']}", f"{r['n_micro']} x {r['micro']}", f"{r['bias']:+.1%}",
             f"{r['covered']:.1%}", f"{r['jackknife']:.1%}", f"{r['open']:.0%}"] for r in found["quadratic"]
        ])  # fmt: skip
    if "tasks" in found:
        lines += ["", "Second half of a decayed session of a tenth of a full run, in samples, with 95% interval."]
        rows = []
        for r in found["tasks"]:
            scales = [f"{number(v)} ({number(a)} to {number(b)})" for v, a, b in (r[PLAIN], r[ADAPTIVE])]
            rows.append([r["task"], f"{r['batch']}", f"{r['n_steps']}", *scales, f"{r['cpu_s']}"])
        lines += table("task, batch, updates, plain, adaptive, CPU s", rows)
    if "rule" in found:
        lines += [
            "",
            "Loss above the best batch tried, each at its best of up to 7 rates, same samples; SHARE from the other tasks.",
        ]
        ways = ("by_scale", "by_updates", "largest")
        rows = [[r["task"], f"{r['n_samples']:.0f}", f"{r['noise_scale']:.3g}", " ".join(map(str, r["batches"])), f"{r['best']}",
                 f"{r['share']}", *(f"{r[k]:+.2%}" for k in ways)] for r in found["rule"]]  # fmt: skip
        rows.append(["median", *[""] * 5, *(f"{np.median([r[k] for r in found['rule']]):+.2%}" for k in ways)])
        lines += table(
            "task, samples, noise scale, batches tried, best, SHARE, SHARE x scale, D / 800, largest tried", rows
        )
    if "branches" in found:
        r = found["branches"]
        lines += ["", f"Branches of {r['task']} after {r['start']} updates, {r['n_samples']} samples each: critical batch "
                  f"{r['value']} ({r['low']} to {number(r['high'])})."]  # fmt: skip
        costs = [[f"{batch}", f"{cost:+.2%}", f"{error:.2%}"] for batch, cost, error in r["costs"]]
        lines += table("batch, loss above the first, standard error", costs)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked, keep it, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quadratic", "tasks", "branches", "rule", "page"])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--runs", type=Path, default=planning_tasks.KEPT)
    asked = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "quadratic": all_quadratics, "tasks": lambda: all_tasks(asked.only), "branches": all_branches,
    }  # fmt: skip
    parts["rule"] = lambda: rule(asked.runs, kept()["tasks"])
    found = kept()
    if asked.what in parts:
        found[asked.what] = parts[asked.what]()
        KEPT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    RESULT.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
