"""A longer run from the middle of a finished one: the checkpoint at the start of the cool-down goes on at the peak rate, and
a new cool-down comes at the new end.

The new run is a folder of its own, so that nothing of the old one is lost. It begins with the old one's data (linked,
not copied), logs and weights up to that checkpoint, and is from there on an ordinary run that was stopped: it can be
killed and resumed. What it trains is, bit for bit, what one run of the whole length with the same choices would have been.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from danlu.base.errors import UserError
from danlu.base.runfolder import MetricsLog, RunFolder, SampleLog, fingerprint, read_json, write_json, write_text
from danlu.base.units import Length, parse_length
from danlu.data.samples import SampleSource
from danlu.parallel.checkpoint import CheckpointWriter, Snapshot, load, load_newest, steps_in
from danlu.parallel.checkpoint_files import folder_name
from danlu.planning.choices import Choices
from danlu.recipe import Recipe

USABLE = 0.93
"""Share of the added time that is planned for, where the new length is a time."""


def extended(old: RunFolder, length: str, out: Path | None, allow_code: Iterable[str] = ()) -> tuple[Recipe, RunFolder]:
    """The longer run's recipe and folder, with all that the old run knows up to the start of its cool-down. Called again
    on a folder that it has made, it leaves it as it is."""
    before = Recipe.load(old.recipe, allow_code=allow_code)
    was = Choices.read(old)
    step, saved = stable_checkpoint(before, old, was)
    wanted = wanted_length(length)
    sets = [f'train.length="{wanted}"', f'schedule.warmup="{warmup_steps(before, was)} steps"']
    recipe = Recipe.load(old.recipe, sets, allow_code)
    choices = was.model_copy(update={"n_steps": steps_of(recipe, old, was, wanted, step), "forks": ()})
    choices = choices.model_copy(update={"time_limit_s": wanted.amount if wanted.unit == "seconds" else None})
    check_longer(recipe, choices, was, step)
    folder = RunFolder.create(out, recipe.name, recipe.digest())
    with folder.lock():
        if not steps_in(folder.checkpoints):
            fill(recipe, folder, old, choices, saved)
    return recipe, folder


def stable_checkpoint(recipe: Recipe, run: RunFolder, choices: Choices) -> tuple[int, Snapshot]:
    """(step, snapshot) of the newest checkpoint that a longer run would have passed through too; UserError without one."""
    schedule: Any = recipe.schedule
    end = schedule.stable_until(choices.n_steps)
    if end is not None and choices.time_limit_s is not None:
        end = cooled_from(run) or end
    if end is None:
        raise UserError(
            f"{run.path}: schedule.kind",
            "must have a stable phase: this schedule's every rate depends on where the run ends",
            got=schedule.kind, fix='train anew with schedule.kind = "wsd" and the longer length',
        )  # fmt: skip
    found = next((step for step in steps_in(run.checkpoints) if 0 < step <= end), None)
    if found is None:
        raise UserError(
            f"{run.path}: its checkpoints", f"must hold one at or before step {end}, where its cool-down begins",
            got=f"steps {steps_in(run.checkpoints)}",
            fix="train anew with the longer length (checkpoint.save_every must not be \"never\")",
        )  # fmt: skip
    return found, load(run.checkpoints / folder_name(found))


def cooled_from(run: RunFolder) -> int:
    """The step at which a time budget let the cool-down begin (training/pace.py); 0 where it did not."""
    newest, _ = load_newest(run.checkpoints)
    return int(newest.state["position"].get("cools_from", 0)) if newest else 0


def wanted_length(text: str) -> Length:
    """The new length; UserError for what is none."""
    try:
        return parse_length(text)
    except ValueError as error:
        raise UserError("--length", str(error), got=text) from error


def warmup_steps(recipe: Recipe, choices: Choices) -> int:
    """The old warm-up, in steps: a share of the longer run would be another."""
    schedule: Any = recipe.schedule
    return int(schedule.n_warmup(choices.n_steps))


def steps_of(recipe: Recipe, old: RunFolder, was: Choices, length: Length, step: int) -> int:
    """Updates that the new length comes to, those already made counted."""
    rows = [row for row in MetricsLog(old.train / "metrics.jsonl") if row["step"] <= step and "times" in row]
    if length.unit == "seconds":
        spent = [sum(row["times"].values()) for row in rows]
        left = USABLE * (length.amount - rows[-1]["elapsed_s"])
        return step + max(0, int(left / (sum(spent) / len(spent))))
    is_samples, model = isinstance(recipe.data, SampleSource), recipe.model
    train = read_json(old.data / "card.json")["splits"]["train"]
    context = 1 if is_samples else model.context  # type: ignore[attr-defined]
    n_unique = train["n_samples"] if is_samples else train["n_tokens"]
    samples: float = {
        "steps": length.amount * was.batch, "samples": length.amount, "tokens": length.amount / context,
        "epochs": length.amount * n_unique / context,
    }[length.unit]  # fmt: skip
    return math.ceil(samples / was.batch - 1e-9)


def check_longer(recipe: Recipe, choices: Choices, was: Choices, step: int) -> None:
    """Refuse a length at which the cool-down would have begun before the checkpoint."""
    schedule: Any = recipe.schedule
    if choices.n_steps <= was.n_steps or schedule.stable_until(choices.n_steps) < step:
        raise UserError(
            "--length", f"must be longer than the run, which has {was.n_steps:,} steps", got=f"{choices.n_steps:,} steps",
            fix=f'give more, such as --length "{2 * was.n_steps} steps"',
        )  # fmt: skip


def fill(recipe: Recipe, run: RunFolder, old: RunFolder, choices: Choices, saved: Snapshot) -> None:
    """Everything up to the checkpoint; the checkpoint itself last, so that a folder that has one is whole."""
    link_tree(old.data, run.data)
    write_text(run.recipe, recipe.sparse_toml())
    plan = read_json(old.plan)
    body = choices.model_dump(mode="json")
    why = f"{recipe.train.length}, {choices.n_steps} steps: {old.path} goes on from step {saved.step}, where its cool-down began."
    kept = [d for d in plan["decisions"] if d["name"] not in ("train.length", "train.n_steps", "plan.forecast")]
    kept.append({"name": "train.n_steps", "value": choices.n_steps, "origin": "derived", "why": why, "source": "", "valid": "",
                 "in_range": True})  # fmt: skip
    write_json(
        run.plan, plan | {"decisions": kept, "predictions": [], "choices": body, "fingerprint": fingerprint(body)}
    )
    run.train.mkdir(parents=True, exist_ok=True)
    for name in ("metrics.jsonl", "sample_ids.bin"):
        shutil.copyfile(old.train / name, run.train / name)
    MetricsLog(run.train / "metrics.jsonl").truncate_after(saved.step)
    SampleLog(run.train / "sample_ids.bin", choices.batch).truncate_after(saved.step)
    copy_stage(old, run, "prepare")
    state = saved.state | {"fingerprints": saved.state["fingerprints"] | {"plan": fingerprint(body)}}
    state["position"] = state["position"] | {"finished": "", "n_steps": 0, "cools_from": 0}
    writer = CheckpointWriter(run.checkpoints, asynchronous=False)
    writer.save(dataclasses.replace(saved, state=state))
    writer.close()


def link_tree(source: Path, target: Path) -> None:
    """The same files under another folder: linked where the file system can (they are only ever replaced whole), else
    copied."""
    for path in sorted(source.rglob("*")):
        there = target / path.relative_to(source)
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        there.unlink(missing_ok=True)
        try:
            os.link(path, there)
        except OSError:
            shutil.copyfile(path, there)


def copy_stage(old: RunFolder, run: RunFolder, name: str) -> None:
    """A stage's record in the manifest, whose outputs are the same files."""
    records = [read_json(folder.manifest) for folder in (old, run)]
    if name in records[0]["stages"]:
        records[1]["stages"][name] = records[0]["stages"][name]
        write_json(run.manifest, records[1])
