"""Every shipped task recipe on real data: test score with its interval, against what it must reach and within.

    DANLU_DATA=../shared/data python benchmarks/tasks.py [--only NAME ...] [--seeds 3]

Each (recipe, seed) is one `danlu run` in a process of its own; results are kept in benchmarks/tasks.json as they come,
so a benchmark that was stopped goes on where it was. The table is benchmarks/tasks.md.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]
KEPT, TABLE = ROOT / "benchmarks" / "tasks.json", ROOT / "benchmarks" / "tasks.md"


@dataclass(frozen=True)
class Aim:
    """One line of the table."""

    recipe: str
    """recipes/<recipe>.toml"""
    data: str
    metric: str
    reach: float
    minutes: float
    lower: bool = False
    folds: int = 0
    """Folds that each seed is run over."""
    first: str = ""
    """A recipe that is run before, and whose weights this one starts from; its time counts."""


AIMS = (
    Aim("mnist-lenet", "mnist", "accuracy", 0.990, 4),
    Aim("mnist-resnet", "mnist", "accuracy", 0.995, 15),
    Aim("listings/d", "mnist", "accuracy", 0.975, 1),
    Aim("adult", "adult", "accuracy", 0.855, 3),
    Aim("adult", "adult", "auc", 0.908, 3),
    Aim("titanic", "titanic, mean of 5 folds", "accuracy", 0.80, 1, folds=5),
    Aim("bike-sharing", "bike_sharing, hourly", "r2", 0.0, 3),
    Aim("etth1", "etth1, horizon 96", "mse", 0.385, 5, True),
    Aim("beijing-pm25-lstm", "beijing_pm25", "mse", float("inf"), 5, True),
    Aim("beijing-pm25-gru", "beijing_pm25", "mse", float("inf"), 5, True),
    Aim("sst2-recurrent", "sst2", "accuracy", 0.80, 10),
    Aim("sst2-bert", "sst2", "accuracy", 0.80, 10, first="sst2-masked"),
    Aim("multi30k-en-de", "multi30k, test2016", "bleu", 33.0, 30),
    Aim("fsdd-speech", "fsdd, official test", "word_error", 0.08, 8, True),
    Aim("fsdd-wavenet", "fsdd", "nats_per_sample", float("inf"), 20, True),
    Aim("bccd", "bccd, given test", "map_50", 0.70, 25),
    Aim("secondary-structure", "protein_sequences", "accuracy", 0.66, 20),
    Aim("fold", "pdb_structures, 8 chains", "lddt", 0.80, 20),
    Aim("poetry-characters", "chinese_poetry", "bits_per_byte", float("inf"), 8, True),
    Aim("poetry-bpe", "chinese_poetry", "bits_per_byte", float("inf"), 8, True),
)  # fmt: skip


def danlu_run(recipe: str, out: Path, sets: list[str]) -> str:
    """One `danlu run` in a process of its own; what it complained of, or nothing."""
    words = [word for s in sets for word in ("--set", s)]
    danlu = Path(sys.executable).with_name("danlu")
    made = subprocess.run(
        [danlu, "run", ROOT / f"recipes/{recipe}.toml", *words, "--out", out],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    return made.stderr.strip()[-500:] or f"exit {made.returncode}" if made.returncode else ""


def run_one(aim: Aim, number: int, keep: Path | None) -> dict[str, object]:
    """Train and score once; what the table needs. Runs of one aim are numbered, folds within seeds."""
    seed, fold = divmod(number, max(1, aim.folds))
    with tempfile.TemporaryDirectory() as passing:
        folder = passing if keep is None else str(keep / f"{aim.recipe.replace('/', '-')}-{number}")
        out, sets = Path(folder) / "run", [f"seed={seed}"] + [f"data.split.fold={fold}"] * bool(aim.folds)
        began = time.perf_counter()
        failed = ""
        if aim.first:
            failed = danlu_run(aim.first, Path(folder) / "first", [f"seed={seed}"])
            sets.append(f'train.start_from="{folder}/first"')
        failed = failed or danlu_run(aim.recipe, out, sets)
        seconds = time.perf_counter() - began
        if failed:
            return {"seed": seed, "failed": failed, "seconds": seconds}
        scores = json.loads((out / "evaluate/scores.json").read_text(encoding="utf-8"))
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        rivals = {
            name: {"value": found[scores["headline"]]["value"], "behind": found.get("behind")}
            for name, found in scores["baselines"].items()
        }
        return {
            "seed": seed, "seconds": seconds, "cores": len(os.sched_getaffinity(0)), "train_s": manifest["stages"]["train"]["seconds"],
            "headline": scores["headline"], "split": scores["split"], "metrics": scores["metrics"], "rivals": rivals,
            "beats": scores["beats_baselines"],
        }  # fmt: skip


def line(aim: Aim, results: list[dict[str, object]]) -> str:
    """One row of Markdown."""
    good = [r for r in results if "failed" not in r]
    if not good:
        why = str(results[0].get("failed", "not run")) if results else "not run yet"
        return f"| {aim.data} | `{aim.recipe}` | {aim.metric} | {why[:120]} | | | | |"
    metrics = [r["metrics"][aim.metric] for r in good]  # type: ignore[index]
    value = mean(m["value"] for m in metrics)
    low, high = min(m["low"] for m in metrics), max(m["high"] for m in metrics)
    minutes = max(float(r["seconds"]) for r in good) / 60  # type: ignore[arg-type]
    rivals = good[0]["rivals"]
    told = (
        ", ".join(f"{name} {found['value']:.4g}" for name, found in rivals.items()) if isinstance(rivals, dict) else ""
    )
    reached = value <= aim.reach if aim.lower else value >= aim.reach
    if aim.reach in (0.0, float("inf")):
        wanted, reached = "beat the baselines", all(r["beats"] for r in good)
    else:
        wanted = f"{'≤' if aim.lower else '≥'} {aim.reach:g}"
    met = "yes" if reached and minutes <= aim.minutes else "late" if reached else "no"
    n_cores = max(int(r["cores"]) for r in good)  # type: ignore[call-overload]
    cores = f"{n_cores} core{'s' if n_cores > 1 else ''}"
    n_seeds = len({r["seed"] for r in good})
    seeds = f"{n_seeds} seed{'s' if n_seeds > 1 else ''}"
    return (
        f"| {aim.data} | `{aim.recipe}` | {aim.metric} | {value:.4g} ({low:.4g} to {high:.4g}), {seeds} | {wanted} | "
        f"{minutes:.1f} of {aim.minutes:g}, {cores} | {met} | {told} |"
    )


def write_table(kept: dict[str, list[dict[str, object]]]) -> None:
    """benchmarks/tasks.md from what is kept."""
    head = [
        "# Every task, from its shipped recipe",
        "",
        "Made by `make bench-tasks` (benchmarks/tasks.py). Score: mean over runs; in brackets the widest of their 95%",
        "bootstrap intervals. Minutes: the slowest whole `danlu run` (prepare, plan, train, evaluate, report), of those allowed on 2",
        "cores, and the cores it had; no GPU. met: whether the mean reaches what is wanted, in time.",
        "Baselines: on the same test split, first seed.",
        "",
        "| data | recipe | metric | score | wanted | minutes | met | baselines |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = [line(aim, kept.get(aim.recipe, [])) for aim in AIMS]
    TABLE.write_text("\n".join([*head, *rows, ""]), encoding="utf-8")


def read_kept() -> dict[str, list[dict[str, object]]]:
    """Results so far, by recipe."""
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}  # type: ignore[no-any-return]


def keep(recipe: str, found: list[dict[str, object]]) -> dict[str, list[dict[str, object]]]:
    """Put results with those that another process may have put there; all of them."""
    with KEPT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = read_kept() | {recipe: found}
        KEPT.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return kept


def main() -> None:
    """Run what is missing, write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="recipes; their kept results are replaced")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder to leave the run folders in")
    given = parser.parse_args()
    if "DANLU_DATA" not in os.environ:
        sys.exit("Set DANLU_DATA to the folder with the data sets.")
    os.environ["DANLU_DATA"] = str(Path(os.environ["DANLU_DATA"]).resolve())
    kept = read_kept()
    run_now: set[str] = set()
    for aim in AIMS:
        if (given.only and aim.recipe not in given.only) or aim.recipe in run_now:
            continue
        run_now.add(aim.recipe)
        found = [] if given.only else [r for r in kept.get(aim.recipe, []) if "failed" not in r]
        for number in range(len(found), given.seeds * max(1, aim.folds)):
            found.append(run_one(aim, number, given.keep))
            write_table(keep(aim.recipe, found))
            print(line(aim, found), flush=True)


if __name__ == "__main__":
    main()
