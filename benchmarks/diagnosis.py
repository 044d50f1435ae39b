"""Planted faults and healthy controls: does the alarm (danlu/trust) find the ones and leave the others alone?

    DANLU_DATA=../shared/data python benchmarks/diagnosis.py run [--only WORD ...]    train what is not kept yet
    python benchmarks/diagnosis.py judge                                              judge the kept records, write the page

Short real trainings by the library's own loop; faults are planted around its loader, parts and optimizer (
diagnosis_faults.py). What the alarm saw in each run is kept in DANLU_BENCH, so thresholds are judged without training again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diagnosis_faults as faults
import planning_tasks as planned
from planning_tasks import ADULT, MNIST, sampled, small, text

from danlu.base.runfolder import RunFolder, write_json
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.training import loop
from danlu.training.alarm import Alarm
from danlu.trust.diagnose import Diagnosis

WORK = Path(os.environ.get("DANLU_BENCH", "~/.cache/danlu/bench-planning")).expanduser() / "diagnosis"
PAGE = Path(__file__).with_suffix(".md")
N_STEPS, BREAK_AT = 200, 120
DEVELOPMENT, HELD_OUT = ("text", "image", "table"), ("regress", "tag")
"""Thresholds were set on the first and checked on the second."""
PROTEIN = "$DANLU_DATA/protein_sequences/flip_secondary_structure_splits.zip/splits/sequences.fasta"
TASKS: dict[str, tuple[dict[str, Any], int, float]] = {
    "text": (text("$DANLU_DATA/tiny_shakespeare/input.txt", {"kind": "bytes"}, small(2, 48, 32)), 16, 4e-3),
    "image": (sampled(MNIST, {"kind": "lenet", "style": "classic"}, "classify"), 32, 2e-3),
    "table": (sampled(
        {"kind": "table", "path": "$DANLU_DATA/adult/adult.data", "names": ADULT, "target": "income", "drop": ["fnlwgt"],
         "normalize": "quantile", "split": {"kind": "random", "validation": 0.2}},
        {"kind": "mlp", "layers": [128, 64]}, "classify"), 128, 2e-3),
    "regress": (sampled(
        {"kind": "table", "path": "$DANLU_DATA/bike_sharing/hour.csv", "target": "cnt", "target_transform": "log1p",
         "drop": ["instant", "dteday", "casual", "registered"], "split": {"kind": "random", "validation": 0.2},
         "types": dict.fromkeys(("hr", "mnth", "weekday", "season", "weathersit"), "category")},
        {"kind": "mlp", "layers": [128, 64]}, "regress"), 128, 2e-3),
    "tag": (sampled(
        {"kind": "protein", "path": PROTEIN, "labels": "sampled.fasta", "mask": "mask.fasta", "augment": {"crop": 48},
         "split": {"kind": "named", "column": "set", "validation_column": "validation"}},
        {"kind": "convtagger", "width": 24, "n_layers": 3, "kernel": 5}, "tag"), 12, 2e-3),
}  # fmt: skip
"""Name -> (recipe, batch, rate)."""


@dataclass(frozen=True)
class Run:
    """One training."""

    task: str
    fault: str = ""
    seed: int = 0
    setting: str = ""
    """Name of an unusual but healthy setting."""
    recipe: tuple[tuple[str, Any], ...] = ()
    """Its settings by dotted name."""
    batch: float = 1.0
    """Times the task's."""
    lr: float = 1.0
    n_steps: int = N_STEPS

    @property
    def key(self) -> str:
        """File name."""
        return f"{self.task}-{self.fault or 'healthy'}-{self.setting or 'plain'}-{self.seed}".replace(" ", "_")


FAULTS = {
    "initial loss": {"initial loss"}, "one batch": {"cannot learn one batch"},
    "gradient": {"missing gradient", "frozen weights"}, "duplicated": {"duplicated batches"},
    "unshuffled": {"unshuffled data"}, "shifted": {"shifted labels"}, "dead": {"dead units"},
    "exploding": {"exploding gradient"}, "vanishing": {"vanishing gradient"}, "rate high": {"rate too high"},
    "rate low": {"rate too low"}, "noise": {"label noise"}, "leakage": {"leakage"}, "break": {"off the curve"},
}  # fmt: skip
"""Fault -> findings that name it."""


def healthy() -> Iterator[Run]:
    """Controls: plain, and with unusual settings that are fine."""
    for task in TASKS:
        for seed in range(4):
            yield Run(task, seed=seed)
        yield Run(task, setting="long", n_steps=800)
        yield Run(task, setting="small batch", batch=1 / 8, lr=0.5)
        yield Run(task, setting="large batch", batch=4.0, n_steps=100, lr=1.5)
        if task == "text":
            yield Run(task, setting="larger batch", batch=16.0, lr=2.0)
            yield Run(task, setting="larger batch muon", batch=16.0, recipe=(("optimizer.kind", "muon"),), lr=2.0)
        yield Run(task, setting="rate x3", lr=3.0)
        yield Run(task, setting="rate x0.3", lr=0.3)
        yield Run(task, setting="fine-tuned", lr=0.3, recipe=(("train.start_from", "PLAIN"),))
        yield Run(task, setting="muon", recipe=(("optimizer.kind", "muon"),), lr=1.0)
        yield Run(task, setting="ema", recipe=(("train.ema", 0.98),))
        yield Run(task, setting="no decay", recipe=(("schedule.kind", "constant"),))
        if task not in ("image",):
            yield Run(task, setting="dropout", recipe=(("model.dropout", 0.3),))
        if task not in ("regress",):
            yield Run(task, setting="smoothing", recipe=(("task.label_smoothing", 0.1),))
    yield Run("image", setting="augmented", recipe=(("data.augment.shift", 0.07),))
    yield Run("image", setting="batch norm", recipe=(("model.style", "modern"),), n_steps=100)
    yield Run("table", setting="focal", recipe=(("task.loss", "focal"),))
    yield Run("table", setting="balanced", recipe=(("task.class_weights", "balanced"),))
    yield Run("regress", setting="huber", recipe=(("task.loss", "huber"),))
    yield Run("regress", setting="tanh", recipe=(("model.activation", "tanh"),))


def everything() -> Iterator[Run]:
    """Controls first."""
    yield from healthy()
    for fault in FAULTS:
        for task in TASKS:
            for seed in range(3):
                yield Run(task, fault, seed)


def folder_of(run: Run, home: Path) -> tuple[Recipe, RunFolder]:
    """The recipe and a run folder with the task's prepared data and a plan."""
    sections, batch, lr = TASKS[run.task]
    raw = json.loads(
        json.dumps(
            {
                "name": run.task,
                "seed": run.seed,
                "schedule": {"kind": "wsd"},
                **sections,
                "evaluate": {"during_tokens": 2048, "during_samples": 128},
            }
        )
    )
    raw.setdefault("train", {})
    for name, value in run.recipe:
        place = raw
        *path, last = name.split(".")
        for part in path:
            place = place.setdefault(part, {})
        place[last] = str(WORK / "plain" / run.task) if value == "PLAIN" else value
    recipe = Recipe.model_validate(raw)
    _, data = planned.opened(planned.Task(run.task, sections, 1, batch, lr))
    where = home / run.key
    shutil.rmtree(where, ignore_errors=True)
    folder = RunFolder.create(where, run.task, "0" * 16)
    shutil.rmtree(folder.data, ignore_errors=True)
    folder.data.symlink_to(data.data)
    choices = Choices(
        device="cpu", threads=1, precision="fp32", attention="blocks", operations="plain", compile=False,
        batch=max(2, round(batch * run.batch)), micro_batch=max(2, round(batch * run.batch)), n_steps=run.n_steps, model={},
        optimizer={"lr": lr * run.lr, "weight_decay": 0.01}, evaluate_every=max(10, run.n_steps // 10),
        signals_every=10, save_every_steps=None, save_every_s=None,
        ema=None if recipe.train.ema == "none" else float(recipe.train.ema),
    )  # fmt: skip
    write_json(folder.plan, {"decisions": [], "choices": choices.model_dump(mode="json")})
    with folder.lock():
        pass
    return recipe, folder


@contextmanager
def planted(run: Run, kept: list[Any]) -> Iterator[None]:
    """The library's loop with the fault around its loader and parts, and its records copied to `kept`."""
    made_loader, made_parts, made_alarm = loop.open_loader, loop.make_parts, loop.Alarm

    class Kept(Alarm):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            see: Callable[[Any], Any] = self.diagnosis.see

            def noted(record: Mapping[str, Any]) -> Any:
                kept.append(json.loads(json.dumps(record)))
                return see(record)

            self.diagnosis.see = noted  # type: ignore[method-assign]

    def open_loader(recipe: Any, folder: Any, card: Any, choices: Any) -> Any:
        return broken_loader(run, made_loader(recipe, folder, card, choices), recipe, folder, card, choices.batch)

    def make_parts(*given: Any) -> Any:
        return broken_parts(run, made_parts(*given))

    loop.open_loader, loop.make_parts, loop.Alarm = open_loader, make_parts, Kept  # type: ignore[misc]
    try:
        yield
    finally:
        loop.open_loader, loop.make_parts, loop.Alarm = made_loader, made_parts, made_alarm  # type: ignore[misc]


def other_split(recipe: Any, folder: RunFolder, card: Any, split: str) -> Any:
    """A split by number."""
    if recipe.data.kind == "text":
        return faults.HeldText(planned_tokens(folder, split), recipe.model.context)
    return recipe.data.open(folder.data, card, split)


def planned_tokens(folder: RunFolder, split: str) -> Any:
    """A token file."""
    from danlu.data.shards import open_split

    return open_split(folder.data, split).tokens


def broken_loader(run: Run, loader: Any, recipe: Any, folder: RunFolder, card: Any, batch: int) -> Any:
    """The loader with the run's fault."""
    match run.fault:
        case "one batch":
            return faults.Around(loader, faults.emptied)
        case "duplicated" if run.seed == 0:
            return faults.Around(loader, faults.halves)
        case "duplicated":
            n = {1: 3, 2: 40}[run.seed]
            return faults.Around(loader, lambda step, b: b, lambda step: step // n)
        case "unshuffled":
            return faults.Ordered(loader, other_split(recipe, folder, card, "train"), batch)
        case "shifted":
            return faults.Around(loader, faults.shifted)
        case "noise":
            return faults.Around(loader, faults.noisy((0.3, 0.4, 0.5)[run.seed]))
        case "leakage" if run.task in ("table", "regress"):
            return faults.Around(loader, faults.given_away)
        case "leakage":
            return faults.Mixed(loader, other_split(recipe, folder, card, "validation"))
        case "break" if run.seed == 0:
            return faults.Around(loader, lambda step, b: b if step < BREAK_AT else faults.emptied(step, b))
        case "break" if run.seed == 1:
            noisy = faults.noisy(0.5)
            return faults.Around(loader, lambda step, b: b if step < BREAK_AT else noisy(step, b))
    return loader


def broken_parts(run: Run, parts: Any) -> Any:
    """Model, task and optimizer with the run's fault."""
    model, found = parts.model, faults.matrices(parts.model)

    def optimized(factor: Callable[[int], float], *kept: Any) -> None:
        parts.optimizer = faults.AroundOptimizer(parts.optimizer, factor, list(kept))

    match run.fault:
        case "initial loss":
            faults.blown_up(model)
        case "gradient" if run.seed == 0:
            faults.scaled(found[len(found) // 2][1], lambda n: 0.0)
        case "gradient":
            optimized(lambda n: 1.0, found[run.seed % len(found)][1])
        case "dead":
            faults.killed(model)
        case "exploding" if run.seed == 2:
            faults.gradients_by_depth(model, lambda n: 1.06**n)
        case "exploding":
            faults.gradients_by_depth(model, lambda n: (1e4, 1e5)[run.seed])
        case "vanishing":
            faults.gradients_by_depth(model, lambda n: (1e-4, 1e-5, 1e-6)[run.seed])
        case "rate high":
            optimized(lambda n: (30.0, 60.0, 100.0)[run.seed] * (1 if run.task in ("text", "image") else 8))
        case "rate low":
            optimized(lambda n: (1 / 100, 1 / 200, 1 / 400)[run.seed])
        case "break" if run.seed == 2:
            optimized(lambda n: 1.0 if n < BREAK_AT else 30.0)
    return parts


def train(run: Run) -> dict[str, Any]:
    """A run's records."""
    from danlu.stages.train import train_steps

    records: list[Any] = []
    recipe, folder = folder_of(run, WORK / "runs")
    began, last = time.perf_counter(), None
    with planted(run, records):
        try:
            for report in train_steps(recipe, folder):
                last = report
            ended = ""
        except Exception as error:  # a run that the guards stop is still a run that was seen
            ended = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    if not run.fault and not run.setting and run.seed == 0:
        keep = WORK / "plain" / run.task
        shutil.rmtree(keep, ignore_errors=True)
        keep.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder.path, keep, symlinks=True)
    shutil.rmtree(folder.path, ignore_errors=True)
    return {"records": records, "seconds": seconds, "ended": ended, "loss": last.loss if last else None}


def kept_path(run: Run) -> Path:
    """Where a run's records are."""
    return WORK / "records" / f"{run.key}.json.gz"


def run_all(only: list[str], seconds: float) -> None:
    """Train what is missing."""
    (WORK / "records").mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    for run in everything():
        if time.perf_counter() - began > seconds:
            return
        if kept_path(run).is_file() or (only and not all(word in run.key for word in only)):
            continue
        found = train(run)
        with gzip.open(kept_path(run), "wt") as file:
            json.dump(found, file)
        n, s = len(found["records"]), found["seconds"]
        print(f"{run.key:40} {n:4d} steps {s:6.1f} s  loss {found['loss']} {found['ended'][:90]}", flush=True)


def judge() -> None:
    """Judge every kept run anew and write the page: recall by fault and task, false alarms, delay."""
    rows: dict[str, dict[str, list[str]]] = {fault: {task: [] for task in TASKS} for fault in FAULTS}
    delays: list[float] = []
    n_steps, false = Counter[str](), []
    n_runs = Counter[str]()
    for run in everything():
        if not kept_path(run).is_file():
            continue
        with gzip.open(kept_path(run), "rt") as file:
            records = json.load(file)["records"]
        diagnosis = Diagnosis()
        found = [finding for record in records for finding in diagnosis.see(record)]
        part = "development" if run.task in DEVELOPMENT else "held out"
        if not run.fault:
            n_steps[part] += len(records)
            n_runs[part] += 1
            false += [(part, run.key, f.name, f.step) for f in found]
            continue
        own = [f for f in found if f.name in FAULTS[run.fault]]
        rows[run.fault][run.task].append("named" if own else "other" if found else "missed")
        if own:
            began = BREAK_AT if run.fault == "break" else 0
            delays.append((own[0].step - began) / run.n_steps)
    PAGE.write_text(page(rows, n_steps, n_runs, false, sorted(delays)), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


def page(rows: Any, n_steps: Counter[str], n_runs: Counter[str], false: list[Any], delays: list[float]) -> str:
    """The results as Markdown."""
    lines = ["# Planted faults and healthy controls", "",
             "Short real trainings by the library's own loop; faults are planted around its loader, parts and optimizer.",
             f"Thresholds were set on {', '.join(DEVELOPMENT)} and then tried on {', '.join(HELD_OUT)}. Three were changed after that",
             "first trial, so the second line is no clean test: shifted tags (score 6 to 4), order (5 to 4.3 standard errors), and",
             "the residual asks for a rise (it had one false alarm, regress at a third of the rate). A cell counts runs whose fault",
             "was named / that raised another alarm only / that were missed. Runs that are not kept yet are not counted.", "",
             "| fault | " + " | ".join(TASKS) + " |", "| --- |" + " --- |" * len(TASKS)]  # fmt: skip
    for fault, by_task in rows.items():
        cells = [" / ".join(str(found.count(w)) for w in ("named", "other", "missed")) for found in by_task.values()]
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    lines.append("")
    for part, names in (("development", DEVELOPMENT), ("held out", HELD_OUT)):
        every = [w for by_task in rows.values() for task in names for w in by_task[task]]
        named, heard = every.count("named"), len(every) - every.count("missed")
        wrong = sum(f[0] == part for f in false)
        lines.append(
            f"- {part} ({', '.join(names)}): named {named} of {len(every)} faults ({named / max(1, len(every)):.0%}), some alarm "
            f"in {heard}; {wrong} false alarms in {n_runs[part]} healthy runs of {n_steps[part]:,} steps."
        )
    if delays:
        middle, late = delays[len(delays) // 2], delays[int(0.9 * len(delays))]
        lines.append(f"- delay from the fault to its name: median {middle:.0%} of the run, 90th percentile {late:.0%}.")
    lines += (
        ["", "False alarms:", *(f"- {key}: {name} at step {step}" for _, key, name, step in false)] if false else []
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "judge"])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=1e9, help="start no run after so many seconds")
    asked = parser.parse_args()
    if asked.what == "run":
        run_all(asked.only, asked.seconds)
    else:
        judge()


if __name__ == "__main__":
    main()
