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
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from danlu.base.contracts import NOT_STEP
from danlu.base.errors import GateError, UserError
from danlu.base.runfolder import MetricsLog, RunFolder, SampleLog, fingerprint, read_json, write_json, write_text
from danlu.base.units import Length, parse_length
from danlu.data.samples import SampleSource
from danlu.parallel.checkpoint import CheckpointWriter, Snapshot, load, steps_in
from danlu.parallel.checkpoint_files import folder_name
from danlu.planning.choices import Choices
from danlu.planning.duration import MODEL_SD, in_time
from danlu.planning.footprint import spread
from danlu.planning.length import forecast
from danlu.planning.prediction import N_STEPS, PEAK_BYTES, STEP_S, TRAIN_S, Prediction, predict
from danlu.planning.seen import ForkSeen, Seen
from danlu.recipe import Recipe
from danlu.training.earlier import setting_of

USABLE = 0.93
"""Share of the added time that is planned for, where the new length is a time."""
PEAK_FACTOR = 1.05
"""One standard deviation, as a factor, of the peak of the same run in another process."""


def extended(old: RunFolder, length: str, out: Path | None, allow_code: Iterable[str] = ()) -> tuple[Recipe, RunFolder]:
    """The longer run's recipe and folder, with all that the old run knows up to the start of its cool-down. Called again
    on a folder that it has made, it leaves it as it is."""
    before = Recipe.load(old.recipe, allow_code=allow_code)
    was = Choices.read(old)
    ended = decided(old) if was.time_limit_s is not None else {}
    step, saved = stable_checkpoint(before, old, was, ended.get("cools_from", 0))
    wanted = wanted_length(length)
    sets = [f'train.length="{wanted}"', f'schedule.warmup="{warmup_steps(before, was)} steps"']
    recipe = Recipe.load(old.recipe, sets, allow_code)
    choices = was.model_copy(update={"n_steps": steps_of(recipe, old, was, wanted, step), "forks": ()})
    choices = choices.model_copy(update={"time_limit_s": wanted.amount if wanted.unit == "seconds" else None})
    check_longer(recipe, choices, ended.get("n_steps") or was.n_steps, step)
    folder = RunFolder.create(out, recipe.name, recipe.digest())
    with folder.lock():
        if not steps_in(folder.checkpoints):
            fill(recipe, folder, old, choices, saved)
    return recipe, folder


def stable_checkpoint(recipe: Recipe, run: RunFolder, choices: Choices, cools_from: int) -> tuple[int, Snapshot]:
    """(step, snapshot) of the newest checkpoint that a longer run would have passed through too; UserError without one.
    `cools_from`: where a time budget let the cool-down begin, if it did."""
    schedule: Any = recipe.schedule
    end = schedule.stable_until(choices.n_steps)
    end = cools_from or end
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


def decided(run: RunFolder) -> dict[str, int]:
    """Where a time budget let the cool-down begin and end (training/pace.py), as the newest good checkpoint has it."""
    for step in steps_in(run.checkpoints):
        with suppress(GateError):  # a bad one is passed over: nothing of the old run changes
            position = load(run.checkpoints / folder_name(step)).state["position"]
            return {name: position.get(name, 0) for name in ("cools_from", "n_steps")}
    return {}


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
    n_unique, context = unique(recipe, old)
    samples: float = {
        "steps": length.amount * was.batch, "samples": length.amount, "tokens": length.amount / context,
        "epochs": length.amount * n_unique / context,
    }[length.unit]  # fmt: skip
    return math.ceil(samples / was.batch - 1e-9)


def check_longer(recipe: Recipe, choices: Choices, made: int, step: int) -> None:
    """Refuse a length no longer than the `made` steps, or at which the cool-down would have begun before the checkpoint."""
    schedule: Any = recipe.schedule
    if choices.n_steps <= made or schedule.stable_until(choices.n_steps) < step:
        raise UserError(
            "--length", f"must be longer than the run, which has {made:,} steps", got=f"{choices.n_steps:,} steps",
            fix=f'give more, such as --length "{2 * made} steps"',
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
    predictions = [p.to_json() for p in expected(recipe, old, choices, saved.step)]
    write_json(
        run.plan,
        plan | {"decisions": kept, "predictions": predictions, "choices": body, "fingerprint": fingerprint(body)},
    )
    run.commit(run.plan, 0)
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


def expected(recipe: Recipe, old: RunFolder, choices: Choices, step: int) -> list[Prediction]:
    """What the longer run is to take and where it will end, from what the old one took and where it and its cooled copies
    ended. Nothing where the old one was never closed."""
    path = old.train / "usage.json"
    if not path.is_file():
        return []
    used = read_json(path)
    rows = [row for row in MetricsLog(old.train / "metrics.jsonl") if "times" in row]
    more = choices.n_steps - step
    pace_s, spent_s = used["elapsed_s"] / used["step"], rows[step - 1]["elapsed_s"]
    beside_s = 2 * used["startup_s"] + used["closing_s"]
    why = f"{more:,} more steps at the {1e3 * pace_s:.3g} ms each took, looks and checkpoints counted"
    factor = math.exp(math.hypot(MODEL_SD, spread([sum(row["times"].values()) for row in rows])))
    whole = predict(TRAIN_S, beside_s + spent_s + pace_s * more, "s", why, "extension", factor=factor)
    limit_s, n_steps = choices.time_limit_s, float(choices.n_steps)
    own = [sum(s for part, s in row["times"].items() if part not in NOT_STEP) for row in rows]
    found = [
        predict(STEP_S, median(own), "s", f"median of {len(own):,} steps of {old.path}", "extension", factor=factor),
        whole if limit_s is None else in_time(whole, limit_s, beside_s, is_paced=True),
        predict(N_STEPS, n_steps, "steps", why, "extension", **{"sd": 0.0} if limit_s is None else {"factor": factor}),
    ]
    if used["peak_bytes"]:
        told = f"what {old.path} held at most"
        found.append(predict(PEAK_BYTES, used["peak_bytes"], "bytes", told, "extension", factor=PEAK_FACTOR))
    return found + list(forecast(seen_of(recipe, old, choices, rows, step)).predictions)


def seen_of(recipe: Recipe, old: RunFolder, choices: Choices, rows: Sequence[dict[str, Any]], step: int) -> Seen:
    """What the old run showed, with its own end as the last of its cooled copies."""
    schedule: Any = recipe.schedule
    looks = [(row["step"], row["validation"]["loss"]) for row in rows if row.get("validation")]
    at_peak = [loss for at, loss in looks if at <= step]
    forks = (
        [ForkSeen(**fork) for fork in read_json(old.train / "forks.json")]
        if (old.train / "forks.json").is_file()
        else []
    )
    if looks and looks[-1][0] > step:
        end = ForkSeen(
            step, looks[-1][0] - step, min(loss for _, loss in looks), 0.0, 0.0, at_peak[-1] if at_peak else None
        )
        forks.append(end)
    n_unique, each = unique(recipe, old)
    return Seen(
        setting_of(recipe, choices), tuple(schedule.lr_at(s, choices.n_steps, 1.0) for s in range(choices.n_steps)),
        tuple(row["loss"] for row in rows[:step]), tuple(forks[-2:]), choices.batch * each, n_unique,
    )  # fmt: skip


def unique(recipe: Recipe, run: RunFolder) -> tuple[int, int]:
    """(samples or tokens of the training split, those of one sample)."""
    train = read_json(run.data / "card.json")["splits"]["train"]
    is_samples, model = isinstance(recipe.data, SampleSource), recipe.model
    return (train["n_samples"], 1) if is_samples else (train["n_tokens"], model.context)  # type: ignore[attr-defined]


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
