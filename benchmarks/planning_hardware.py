"""Time and memory of whole trainings, predicted before they ran and measured after; layouts under memory ceilings.

    DANLU_DATA=../shared/data python benchmarks/planning_hardware.py [--fresh] [--control] [--table]

Every row is one plan and one training in a process of its own, kept in planning_hardware.jsonl; a run that was stopped
goes on where it was (--fresh measures all again, about 6 minutes; --table only writes the page). --control adds the
negative control: the same row with the other core loaded, whose interval must be wider. Writes planning_hardware.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import planning_tasks

from danlu import pipeline
from danlu.base.runfolder import read_json
from danlu.planning.choices import Choices
from danlu.planning.footprint import OUT_OF_MEMORY, Rehearsal, fit
from danlu.planning.layouts import Bench
from danlu.recipe import Recipe
from danlu.training.process import Busy, held, memory_lines

HERE = Path(__file__).parent
KEPT, PAGE = HERE / "planning_hardware.jsonl", HERE / "planning_hardware.md"
TIMED = {
    "bytes": 150, "characters": 200, "bpe": 120, "code": 150, "image-cnn": 200, "image-vit": 300, "table-classify": 400,
    "table-regress": 600, "series": 250, "speech": 80, "tagging": 200,
}  # fmt: skip
"""Steps of the runs whose time is predicted, by task."""
VARIED = [("bytes", 100, {"train.precision": "fp32"}), ("image-vit", 200, {"train.micro_batch": 16})]
"""More of them, with other settings."""
CELLS = {"bytes": 128, "code": 64, "image-cnn": 512, "image-vit": 512, "speech": 64, "tagging": 64}
"""Tasks whose memory is predicted by micro-batch, and their batch."""
CUTS, SHORT = (8, 4, 2, 1), 12
"""The batch over these is the micro-batch; steps of such a run."""
N_CEILINGS, N_UNDER = 200, 40
"""Layouts that are planned under ceilings, and those of them that are run under it."""


def quiet(*_: Any) -> None:
    """Progress that nobody watches."""


def rows() -> Iterator[dict[str, Any]]:
    """Settings of every row."""
    for task, batch in CELLS.items():
        for cut in CUTS:
            yield {"task": task, "steps": SHORT, "settings": {"train.batch": batch, "train.micro_batch": batch // cut}}
    for task, n in TIMED.items():
        yield {"task": task, "steps": n, "settings": {}}
    for task, n, settings in VARIED:
        yield {"task": task, "steps": n, "settings": settings}


def recipe_of(row: dict[str, Any]) -> Recipe:
    """The task's recipe with the row's settings; one thread; nothing is searched for."""
    task = planning_tasks.tasks()[row["task"]]
    raw: dict[str, Any] = {name: dict(section) for name, section in task.recipe.items()}
    raw["train"] = {"length": f"{row['steps']} steps", "batch": task.batch, "threads": 1, "precision": task.precision}
    raw["optimizer"]["lr"], raw["plan"] = task.lr, {"budget": "prior"}
    for dotted, value in row["settings"].items():
        section, _, name = dotted.partition(".")
        raw[section][name] = value
    return Recipe(name=row["task"], **raw)


def folder_of(row: dict[str, Any]) -> Path:
    """A run folder with the task's data prepared in it."""
    ready = planning_tasks.WORK / "hardware" / row["task"]
    recipe = recipe_of(row)
    with pipeline.entered(recipe, ready, (), ()) as made:
        pipeline.run_stage("prepare", made, quiet)
    scratch = planning_tasks.WORK / "hardware" / f"run-{os.getpid()}"
    shutil.copytree(ready, scratch, copy_function=os.link)
    for name in ("manifest.json", "recipe.toml", "recipe.full.toml", "lock"):  # these are written: no hard links
        if (scratch / name).exists():
            (scratch / name).unlink()
            shutil.copy(ready / name, scratch / name)
    return scratch


def one(row: dict[str, Any]) -> dict[str, Any]:
    """Plan, train, compare: in this process, which does nothing else."""
    scratch = folder_of(row)
    try:
        with pipeline.entered(recipe_of(row), scratch, (), ()) as made:
            pipeline.run_stage("prepare", made, quiet)
            began = time.perf_counter()
            lab = pipeline.lab_of(made.recipe, made.folder)
            from danlu.stages.plan import plan

            plan(made.recipe, made.folder, quiet, lab)
            planning_s, before, busy = time.perf_counter() - began, held("", "cpu"), Busy()
            if "ceiling" in row:
                limit_memory(row["ceiling"])
            pipeline.run_stage("train", made, quiet)
            used, planned = read_json(made.folder.train / "usage.json"), read_json(made.folder.plan)
        found = {p["name"]: p for p in planned["predictions"]}
        rehearsal = lab.bench.seen[-1][1]  # type: ignore[union-attr]
        return {
            "row": row, "busy": round(busy.share(), 3), "planning_s": round(planning_s, 2),
            "train_s": [found["train_s"][k] for k in ("value", "low80", "high80", "low95", "high95")] + [used["train_s"]],
            "peak": [found["peak_bytes"][k] for k in ("value", "low80", "high80", "low95", "high95")] + [used["peak_bytes"]],
            "own": used["peak_bytes"] - memory_lines()["RssFile"] - before["own_bytes"],
            "rehearsal": rehearsal.__dict__, "choices": planned["choices"], "why": found["train_s"]["why"],
        }  # fmt: skip
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def limit_memory(n_bytes: int) -> None:
    """Kill this process where it takes more memory than this from now on: by a control group, which counts pages that are touched;
    where none can be made, by a limit of its data (RLIMIT_DATA), which also counts what is only reserved, such as stacks."""
    group = Path(f"/sys/fs/cgroup/memory/danlu-bench-{os.getpid()}")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(n_bytes))
        (group / "cgroup.procs").write_text(
            str(os.getpid())
        )  # pages that it holds already stay where they were counted
    except OSError:
        import resource

        most = memory_lines()["VmData"] + n_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def measured(row: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """A row from the file, or from a new process, and then in the file."""
    key = json.dumps(row, sort_keys=True)
    if key not in kept:
        done = subprocess.run([sys.executable, __file__, "--one", key], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{key}\n{done.stderr[-2000:]}")
        kept[key] = json.loads(done.stdout.splitlines()[-1])
        with KEPT.open("a", encoding="utf-8") as file:
            file.write(json.dumps(kept[key]) + "\n")
        print(told(kept[key]), flush=True)
    return kept[key]


def told(found: dict[str, Any]) -> str:
    """One line on a row."""
    row, time_s, peak = found["row"], found["train_s"], found["peak"]
    return (
        f"{row['task']} {row['steps']} {row['settings']}: {time_s[0]:.2f} s for {time_s[-1]:.2f} s, "
        f"{peak[0] / 1e6:.0f} MB for {peak[-1] / 1e6:.0f} MB"
    )


def replayed(cells: dict[int, dict[str, Any]]) -> Any:
    """Rehearsals from the file: what each micro-batch took, refused above the ceiling as a child's allocation is."""

    def rehearse(choices: Choices, n_steps: int, at_least_s: float, is_whole: bool, ceiling: int | None) -> Rehearsal:
        found = Rehearsal.of(cells[choices.micro_batch]["rehearsal"])
        if ceiling is not None and found.own_bytes > ceiling:
            return Rehearsal(trouble=OUT_OF_MEMORY)
        return found

    return rehearse


def under_ceilings(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """Layouts planned under random ceilings, each with the memory that its own training took in a process of its own."""
    draw, found = random.Random(0), []
    for i in range(N_CEILINGS):
        task = list(CELLS)[i % len(CELLS)]
        cells = {r["row"]["settings"]["train.micro_batch"]: r for r in cells_of(task, kept)}
        sizes = sorted(cells, reverse=True)
        low, high = (cells[m]["own"] for m in (sizes[-1], sizes[0]))
        ceiling = int(draw.uniform(0.8 * low, 1.3 * high))
        bench = Bench(replayed(cells), ceiling)
        best = bench.largest(Choices(**cells[sizes[0]]["choices"]), sizes)
        taken = cells[best.micro_batch]["own"] if best else None
        found.append(
            {"task": task, "ceiling": ceiling, "micro_batch": best.micro_batch if best else None, "own": taken}
        )
    return found


def cells_of(task: str, kept: dict[str, Any]) -> list[dict[str, Any]]:
    """A task's memory rows, the smallest micro-batch first."""
    batch = CELLS[task]
    return [
        measured(
            {"task": task, "steps": SHORT, "settings": {"train.batch": batch, "train.micro_batch": batch // c}}, kept
        )
        for c in CUTS
    ]


def from_half(kept: dict[str, Any]) -> list[tuple[str, int, float, float]]:
    """(task, micro-batch, predicted, measured) peak bytes of the larger half, from rehearsals of the smaller half."""
    found = []
    for task in CELLS:
        cells = cells_of(task, kept)
        points = [(c["row"]["settings"]["train.micro_batch"], Rehearsal.of(c["rehearsal"])) for c in cells[:2]]
        line = fit(points)
        for cell in cells[2:]:
            m = cell["row"]["settings"]["train.micro_batch"]
            n_samples = cell["choices"]["n_steps"] * cell["choices"]["batch"]
            found.append((task, m, points[1][1].process_bytes(line.at(m), n_samples), float(cell["peak"][-1])))
    return found


def errors(pairs: list[tuple[float, float]]) -> str:
    """Median and 90% quantile of |log ratio|, and the sides."""
    logs = [float(np.log(a / b)) for a, b in pairs]
    sizes = sorted(abs(x) for x in logs)
    under = sum(x < -0.02 for x in logs)
    return (
        f"median {median(sizes):.1%}, 90% quantile {np.quantile(sizes, 0.9):.1%}, worst {sizes[-1]:.1%}, "
        f"bias {median(logs):+.1%}, more than 2% too low in {under} of {len(logs)}"
    )


def page(kept: dict[str, Any], control: list[dict[str, Any]], really: list[str]) -> str:
    """planning_hardware.md."""
    timed = [measured(r, kept) for r in rows() if r["steps"] != SHORT]
    cells = [measured(r, kept) for r in rows() if r["steps"] == SHORT]
    half, planned = from_half(kept), under_ceilings(kept)
    over = [p for p in planned if p["own"] is not None and p["own"] > p["ceiling"]]
    refused = sum(p["own"] is None for p in planned)
    inside = {level: sum(r["train_s"][i] <= r["train_s"][-1] <= r["train_s"][i + 1] for r in timed)
              for level, i in ((80, 1), (95, 3))}  # fmt: skip
    busy = [r["rehearsal"]["busy"] for r in timed]
    lines = [
        "# What planning says of time and memory, and what came", "",
        "Written by benchmarks/planning_hardware.py. One thread; each row is a plan and a training in a process of its own.", "",
        f"While these were measured, others used {min(busy):.0%} to {max(busy):.0%} of the machine's processors.", "",
        f"- Time of {len(timed)} whole runs: {errors([(r['train_s'][0], r['train_s'][-1]) for r in timed])}; "
        f"inside the 80% interval {inside[80]}, the 95% one {inside[95]} of {len(timed)}.",
        f"- Peak memory of {len(cells + timed)} runs, from a rehearsal of the same layout: "
        f"{errors([(r['peak'][0], r['peak'][-1]) for r in cells + timed])}.",
        f"- Peak memory of {len(half)} cells, from rehearsals of other micro-batches: {errors([(p, m) for *_, p, m in half])}.",
        f"- {len(planned)} layouts planned under random ceilings: {refused} refused, {len(over)} over their ceiling.",
        *(f"- {line}" for line in really), "",
        "| task | settings | steps | predicted s | 95% interval | measured s | ratio | rehearsal s |", "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in [*timed, *control]:
        t, row = r["train_s"], r["row"]
        settings = ", ".join(f"{k.partition('.')[2]} {v}" for k, v in row["settings"].items())
        settings += ", the other core loaded" if row.get("burner") else ""
        lines.append(f"| {row['task']} | {settings} | {row['steps']} | {t[0]:.2f} | {t[3]:.2f} to {t[4]:.2f} | {t[-1]:.2f} "
                     f"| {t[0] / t[-1]:.3f} | {r['rehearsal']['seconds']:.2f} |")  # fmt: skip
    lines += ["", "| task | batch | micro-batch | predicted MB | measured MB | ratio | from the smaller half MB |",
              "|---|---|---|---|---|---|---|"]  # fmt: skip
    other = {(task, m): p for task, m, p, _ in half}
    for r in cells:
        p, s = r["peak"], r["row"]["settings"]
        far = other.get((r["row"]["task"], s["train.micro_batch"]))
        lines.append(f"| {r['row']['task']} | {s['train.batch']} | {s['train.micro_batch']} | {p[0] / 1e6:.0f} | {p[-1] / 1e6:.0f} "
                     f"| {p[0] / p[-1]:.3f} | {f'{far / 1e6:.0f}' if far else ''} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def run_under(kept: dict[str, Any]) -> list[str]:
    """Train some of the planned layouts with the ceiling as a limit of the process."""
    said = []
    planned = [p for p in under_ceilings(kept) if p["micro_batch"]][:N_UNDER]
    died = []
    for p in planned:
        settings = {"train.batch": CELLS[p["task"]], "train.micro_batch": p["micro_batch"]}
        try:
            measured({"task": p["task"], "steps": SHORT, "settings": settings, "ceiling": p["ceiling"]}, kept)
        except SystemExit:
            died.append(f"{p['task']} with micro-batches of {p['micro_batch']}")
    told = f"{len(died)} ran out: {', '.join(died)}" if died else "none ran out"
    said.append(f"{len(planned)} of them were trained with that ceiling as a limit of the process: {told}.")
    return said


def controlled(kept: dict[str, Any]) -> list[dict[str, Any]]:
    """The same row while a busy loop holds another core."""
    row = {"task": "bytes", "steps": TIMED["bytes"], "settings": {}, "burner": True}
    others = set(range(os.cpu_count() or 1)) - set(list(os.sched_getaffinity(0))[:1])
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    os.sched_setaffinity(burner.pid, others or {0})
    try:
        return [measured(row, kept)]
    finally:
        burner.kill()
        burner.wait()


def main() -> None:
    """See the file's header."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    for flag in ("fresh", "control", "table"):
        parser.add_argument(f"--{flag}", action="store_true")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(json.loads(asked.one))))
        return
    if asked.fresh and not asked.table:
        KEPT.unlink(missing_ok=True)
    kept = {}
    if KEPT.is_file():
        found = [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()]
        kept = {json.dumps(r["row"], sort_keys=True): r for r in found}
    for task in {row["task"] for row in rows()}:  # or a measured process would hold what preparing takes
        shutil.rmtree(folder_of({"task": task, "steps": SHORT, "settings": {}}))
    for row in rows():
        measured(row, kept)
    control = controlled(kept) if asked.control else []
    PAGE.write_text(page(kept, control, run_under(kept)), encoding="utf-8")


if __name__ == "__main__":
    main()
