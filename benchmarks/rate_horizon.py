"""How does the best rate move with the length of a run, at a fixed batch?

    DANLU_DATA=../shared/data python benchmarks/rate_horizon.py [--only TASK ...] [--table]

Fully decayed runs of 1/16, 1/4 and all of a development task's samples (planning_tasks.py), AdamW, one batch, rates by factors
of 2. The whole runs are the oracle's (planning_runs.jsonl), the short ones are kept in rate_horizon.jsonl, so a benchmark that
was stopped goes on where it was; one seed. The loss is that of the validation split at the end, the best rate the vertex of
a parabola in log rate fitted around the lowest loss with weights that fall off as exp(-(distance / log 3)^2). The slope is
that of log best rate against log updates, with a 90% interval: losses are drawn again 2,000 times with a relative
noise of 1%, which is too small for images. The second table is the oracle's alone: the best rate of each batch at the same
number of samples, and the slope of log best rate against log batch. The page is benchmarks/rate_horizon.md.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from planning_tasks import BATCHES, RATES, NotKeptError, choices_of, kept_runs, key_of, opened, tasks
from rate_transfer import N_DRAWS, vertex

from danlu.planning.trials import Trial

ROOT = Path(__file__).resolve().parents[1]
KEPT, TABLE = ROOT / "benchmarks" / "rate_horizon.jsonl", ROOT / "benchmarks" / "rate_horizon.md"
CHOSEN = {"bytes": 8, "code": 4, "characters": 8, "table-classify": 32, "image-cnn": 16, "image-vit": 16}
"""Tasks, and the batch of each: a quarter of the usual one, which gives the most updates."""
SHARES, POWERS, NOISE = (1 / 16, 1 / 4, 1.0), (-2, -1, 0, 1, 2, 3), 0.01
"""Relative noise of a loss: seeds of the whole runs differ by about this (benchmarks/planning.md)."""


@dataclass(frozen=True)
class Curve:
    """Losses of a task at one length."""

    n_steps: int
    rates: list[float]
    losses: list[float]
    """Relative to the lowest."""

    def best(self, rng: np.random.Generator | None = None) -> float:
        """Best log rate; with a generator, from losses drawn again."""
        y = np.array(self.losses)
        return vertex(np.log(self.rates), y if rng is None else y + rng.normal(0, NOISE, y.shape))


def loss_of(name: str, share: float, rate: float, is_frozen: bool) -> float:
    """Validation loss at the end, from the files or trained now; infinite when it diverged."""
    from danlu.stages.train import run_trial

    task, batch = tasks()[name], CHOSEN[name]
    key = key_of(task, rate, batch, 0, share, {})
    kept = kept_runs() if share == 1 else {r["key"]: r for r in read()}
    if key in kept:
        return math.inf if kept[key]["loss"] is None else float(kept[key]["loss"])
    if is_frozen or share == 1:
        raise NotKeptError(name)
    choices = choices_of(task, rate, batch, share)
    outcome = run_trial(*opened(task), Trial(choices, 0))
    row = {"key": key, "task": name, "share": share, "batch": batch, "n_steps": choices.n_steps, "lr": rate,
           "loss": outcome.loss if math.isfinite(outcome.loss) else None, "seconds": round(outcome.seconds, 1)}  # fmt: skip
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    return outcome.loss


def read() -> Iterator[dict[str, object]]:
    """Kept short runs."""
    if KEPT.is_file():
        yield from (json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines())


def curve(name: str, share: float, is_frozen: bool) -> Curve:
    """One length. Short runs go on to higher rates while the best is at the upper end."""
    task, batch = tasks()[name], CHOSEN[name]
    rates = [float(f"{task.lr * 2.0**k:.4g}") for k in POWERS]
    losses = [loss_of(name, share, rate, is_frozen) for rate in rates]
    while share < 1 and losses[-1] == min(losses) and len(rates) < len(POWERS) + 4:
        rates.append(float(f"{rates[-1] * 2:.4g}"))
        losses.append(loss_of(name, share, rates[-1], is_frozen))
    n_steps = max(1, round(share * task.n_samples / batch))
    return Curve(n_steps, rates, [x / min(losses) for x in losses])


def slope(curves: list[Curve], rng: np.random.Generator | None = None) -> float:
    """d log best rate / d log updates."""
    return float(np.polyfit(np.log([c.n_steps for c in curves]), [c.best(rng) for c in curves], 1)[0])


def batch_rows() -> tuple[list[str], list[float]]:
    """The oracle's best rate of each batch whose rates are all kept, and the slope of each task."""
    lines = ["| task | batches | best rates | slope |", "|---|---|---|---|"]
    slopes, kept = [], kept_runs()
    for name, task in tasks().items():
        best: dict[int, float] = {}
        for scale in sorted(BATCHES):
            batch = max(1, round(task.batch * scale))
            rates = [float(f"{task.lr * r:.4g}") for r in RATES]
            rows = [kept.get(key_of(task, rate, batch, 0, 1.0, {})) for rate in rates]
            if not task.abstain and all(rows):
                losses = np.array([float(r["loss"] or math.inf) for r in rows if r is not None])
                best[batch] = vertex(np.log(rates), losses / losses.min())
        if len(best) > 1:
            slopes.append(float(np.polyfit(np.log(list(best)), list(best.values()), 1)[0]))
            told = ", ".join(f"{math.exp(x):.2g}" for x in best.values())
            lines.append(f"| {name} | {', '.join(map(str, best))} | {told} | {slopes[-1]:+.2f} |")
    return lines, slopes


def summed(slopes: list[float]) -> str:
    """Mean and spread over tasks."""
    spread = f", standard deviation over tasks {np.std(slopes, ddof=1):.2f}" if len(slopes) > 1 else ""
    return f"Mean of {len(slopes)} slopes {np.mean(slopes):+.2f}{spread}."


def main() -> None:
    """Train what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    lines = ["# How the best rate moves with the length of a run", "", *(__doc__ or "").splitlines()[4:], "",
             "| task | batch | updates | best rates | slope (90%) |", "|---|---|---|---|---|"]  # fmt: skip
    slopes, rng = [], np.random.default_rng(0)
    for name in [n for n in CHOSEN if not asked.only or n in asked.only]:
        try:
            curves = [curve(name, share, asked.table) for share in SHARES]
        except NotKeptError:
            continue
        slopes.append(slope(curves))
        low, high = np.quantile([slope(curves, rng) for _ in range(N_DRAWS)], [0.05, 0.95])
        updates, best = (
            ", ".join(x) for x in zip(*((f"{c.n_steps:,}", f"{math.exp(c.best()):.2g}") for c in curves), strict=True)
        )
        lines.append(
            f"| {name} | {CHOSEN[name]} | {updates} | {best} | {slopes[-1]:+.2f} ({low:+.2f} to {high:+.2f}) |"
        )
    batches, of_batch = batch_rows()
    lines += ["", summed(slopes), "", "## Batch at a fixed number of samples", "", *batches, "", summed(of_batch), ""]
    TABLE.write_text("\n".join(lines), encoding="utf-8")
    print(f"Wrote {TABLE}.")


if __name__ == "__main__":
    main()
