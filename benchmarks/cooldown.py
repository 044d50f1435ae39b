"""How long should the cool-down be? Shares of the run at the same number of updates, by kind of model.

    DANLU_DATA=../shared/data python benchmarks/cooldown.py [--only TASK ...] [--table]

The development tasks of planning_tasks.py, and a VGG, by AdamW under warm-up, stable, decay, at a rate near the best of their
grid and at twice it, the cool-down being 20%, 50% or 80% of the run. Runs are kept in cooldown_runs.jsonl; a benchmark that
was stopped goes on where it was; --table trains nothing. No sealed task is among them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from statistics import mean
from typing import Any

from planning_tasks import MNIST, ROOT, Task, choices_of, opened, sampled, tasks

from danlu.planning.noise import seed_noise
from danlu.planning.trials import Trial

KEPT, PAGE = ROOT / "benchmarks" / "cooldown_runs.jsonl", ROOT / "benchmarks" / "cooldown.md"
SHARES = ("20%", "50%", "80%")
PLACES = {
    "bytes": (8e-3, 32), "characters": (8e-3, 32), "bpe": (8e-3, 32), "code": (8e-3, 16), "grammar": (8e-3, 16),
    "image-cnn": (2e-3, 64), "image-vit": (3e-3, 64), "vgg": (2e-3, 64), "table-classify": (2e-3, 128),
    "table-regress": (8e-3, 128), "series": (2e-3, 128), "speech": (8e-3, 32), "tagging": (8e-3, 32),
}  # fmt: skip
"""Task -> (rate, batch)."""
SEEDS = {"image-cnn": (0, 1, 2), "image-vit": (0, 1, 2), "vgg": (0, 1, 2), "speech": (0, 1, 2)}
"""Where a first seed showed a difference; one elsewhere. The second rate has one."""


def every() -> dict[str, Task]:
    """Tasks by name."""
    vgg = Task("vgg", sampled(MNIST, {"kind": "vgg"}, "classify"), 12_000, 64, 2e-3, "fp32")
    return {**tasks(), "vgg": vgg}


def wanted(only: list[str]) -> Iterator[tuple[str, float, int, str]]:
    """(task, rate, seed, share) of every run."""
    for name, (lr, _) in PLACES.items():
        if not only or name in only:
            for seed in SEEDS.get(name, (0,)):
                yield from ((name, lr, seed, share) for share in SHARES)
            yield from ((name, 2 * lr, 0, share) for share in SHARES)


def kept() -> dict[tuple[Any, ...], float | None]:
    """Best validation loss by (task, rate, seed, share); None where it diverged."""
    rows = [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()] if KEPT.is_file() else []
    return {(r["task"], r["lr"], r["seed"], r["decay"]): r["loss"] for r in rows}


def train(name: str, lr: float, seed: int, share: str) -> None:
    """One run, added to the file."""
    from danlu.stages.train import run_trial

    task, batch = every()[name], PLACES[name][1]
    recipe, folder = opened(task)
    choices = choices_of(task, lr, batch)
    looks = tuple(sorted({max(1, round(choices.n_steps * i / task.n_looks)) for i in range(1, task.n_looks + 1)}))
    outcome = run_trial(recipe, folder, Trial(choices, seed, looks=looks, settings={"schedule.decay": share}))
    loss = None if outcome.diverged else min(look.loss for look in outcome.looks)
    row = {
        "task": name,
        "lr": lr,
        "batch": batch,
        "seed": seed,
        "decay": share,
        "n_steps": choices.n_steps,
        "loss": loss,
    }
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def page() -> str:
    """The whole of cooldown.md."""
    found, doc = kept(), __doc__ or ""
    lines = ["# How long should the cool-down be?", "", doc[doc.index("The development") :].strip(), "",
             "Log of the loss over that of 20% at the same rate and seeds (mean); below 0 is better. The last column is the standard"
             " deviation over seeds at 20%.", "",
             "| task | batch | rate | seeds | loss at 20% | 50% | 80% | over seeds |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, (base, batch) in PLACES.items():
        for lr in (base, 2 * base):
            seeds = [s for s in SEEDS.get(name, (0,)) if all(found.get((name, lr, s, share)) for share in SHARES)]
            if not seeds:
                continue
            of = {share: [float(found[name, lr, s, share] or math.inf) for s in seeds] for share in SHARES}
            logs = {share: mean(math.log(x / y) for x, y in zip(of[share], of["20%"], strict=True)) for share in SHARES}
            noise = f"{seed_noise(of['20%']).sd:.1%}" if len(seeds) > 1 else ""
            told = " | ".join(f"{logs[share]:+.1%}" for share in SHARES[1:])
            lines.append(f"| {name} | {batch} | {lr:g} | {len(seeds)} | {mean(of['20%']):.4g} | {told} | {noise} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    for one in () if asked.table else wanted(asked.only):
        if one not in kept():
            train(*one)
    PAGE.write_text(page(), encoding="utf-8")
    print(page())


if __name__ == "__main__":
    main()
