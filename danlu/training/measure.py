"""Rehearsals: the first steps of a run, trained for real and thrown away, in a child process with a memory ceiling.

The child goes through the same Loop as the run: it opens it, trains, looks at the validation split, writes a checkpoint
into a scratch folder, and says how long each part took and how much memory it held. What happens to the child (a crash,
an allocation refused) is a result, and harms nothing.

The child is a fork, so torch is not imported anew (milliseconds instead of seconds). Threads do not survive a fork, but
OpenMP keeps a pool for each thread that opens a parallel region, so the child works in a new thread, which gets a new
pool. On a GPU, which a fork cannot use, a rehearsal runs in this process: there a refused allocation is an exception.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from danlu.base.runfolder import RunFolder, write_json
from danlu.build import set_machine
from danlu.data.samples import whole_lengths
from danlu.planning.choices import Choices
from danlu.planning.footprint import OUT_OF_MEMORY, Rehearsal
from danlu.recipe import Recipe
from danlu.training.child import in_child
from danlu.training.fork import TrainStep
from danlu.training.loop import Loop
from danlu.training.process import Busy, file_pages, held, memory_lines, new_bytes
from danlu.training.sightings import Arrays
from danlu.training.state import kept
from danlu.training.update import Clock
from danlu.training.usage import peak_bytes, reset_peak
from danlu.training.validation import TOKENS_PER_BATCH, SampleLook, TextLook

NO_END = 1_000_000
"""Steps of a rehearsal's schedule, and seconds between its checkpoints: it is stopped by hand."""
N_BATCHES = 4
"""Batches of a look that are timed at most; the others are taken to be alike."""
LOOK_SHARE = 0.01
"""Of the run's time, what timing more than two of them may take. (Two at least: the second shows what the heap does.)"""


def rehearse(
    recipe: Recipe, run: RunFolder, train_step: TrainStep, choices: Choices, n_steps: int, at_least_s: float,
    is_whole: bool = True, ceiling_bytes: int | None = None,
) -> Rehearsal:  # fmt: skip
    """Train at least `n_steps` steps and `at_least_s` seconds after one to warm up, the first of them left out; a whole
    rehearsal also measures, looks and saves as the run will. The child may take `ceiling_bytes` beyond what this process holds."""
    data, task = run.data.resolve(), partial(rehearsed, recipe, run, train_step, choices, n_steps, at_least_s, is_whole)
    with tempfile.TemporaryDirectory(dir=run.path, prefix=".rehearsal-") as scratch:
        started = time.perf_counter()
        if choices.device == "cpu" and sys.platform == "linux":
            pages = file_pages(data)
            found = in_child(
                lambda: task(Path(scratch)) | {"new_file_bytes": new_bytes(pages, file_pages(data))}, ceiling_bytes
            )
        else:
            found = in_process(partial(task, Path(scratch)))
        return Rehearsal.of(
            found
            | {"seconds": time.perf_counter() - started, "mapped_bytes": mapped(run), **held("parent_", choices.device)}
        )


def in_process(task: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The task here, where a device's refusal of memory is an exception."""
    try:
        return task()
    except torch.OutOfMemoryError:
        return {"trouble": OUT_OF_MEMORY}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def rehearsed(
    recipe: Recipe, run: RunFolder, train_step: TrainStep, choices: Choices, n_steps: int, at_least_s: float,
    is_whole: bool, scratch: Path,
) -> dict[str, Any]:  # fmt: skip
    """The rehearsal itself: a Rehearsal's fields."""
    device = set_machine(choices, recipe.train.deterministic)
    before, busy = held("base_", choices.device), Busy()
    reset_peak(device)
    folder, began = scratch_run(run, scratch, recipe, choices), time.perf_counter()
    with Loop(recipe, folder) as loop:
        found: dict[str, Any] = {"startup_s": time.perf_counter() - began}
        change(loop, signals_every=None)
        found["first_s"] = wall(loop, train_step)
        pool = set_pool(loop, None)  # what the alarm does once with it is no part of a usual step
        steps = [wall(loop, train_step) for _ in range(n_steps)]
        while sum(steps) < at_least_s:
            steps.append(wall(loop, train_step))
        steps = steps[1:] or steps  # the child's pages are still being copied in the second step of all
        heavy = heaviest_step(loop)
        if heavy is not None:
            loop.state.position.batch_offset = heavy - loop.state.position.step
            step(loop, train_step)
        found |= {"steps": steps, "steps_bytes": peak_bytes(device), "busy": busy.share()}
        if is_whole:
            found["state_bytes"] = state_bytes(loop)
            set_pool(loop, pool)
            fill_pool(loop, LOOK_SHARE * run_s(choices, median(steps)))
            found |= rest_of_run(recipe, loop, train_step, choices, median(steps))
            closing = time.perf_counter()
            loop.writer.close()
            found["closing_s"] += time.perf_counter() - closing
        found |= {"peak_bytes": peak_bytes(device), **before}
    lines = memory_lines() if device.type == "cpu" else {}
    return found | {"file_bytes": lines.get("RssFile", 0)}


def rest_of_run(recipe: Recipe, loop: Loop, train_step: TrainStep, choices: Choices, step_s: float) -> dict[str, float]:
    """What does not happen in every step: a measured one, a look with a checkpoint, the last checkpoint."""
    found = {"watch_s": 0.0, "look_s": 0.0, "stall_s": 0.0}
    if recipe.train.signals != "never":
        change(loop, signals_every=loop.state.position.step + 1)
        found["watch_s"] = max(0.0, wall(loop, train_step) - step_s)
        change(loop, signals_every=None)
    if recipe.evaluate.every != "never":
        change(loop, evaluate_every=loop.state.position.step + 1)
        times = shorten(loop.validation, LOOK_SHARE * run_s(choices, step_s) / step_s, choices.batch)
        found["look_s"] = times * step(loop, train_step).times.get("evaluate", 0.0)
        change(loop, evaluate_every=None)
    found["stall_s"] = loop.saving_s
    loop.writer.wait()
    step(loop, train_step)  # beside a checkpoint's buffers
    began = time.perf_counter()
    loop.save_now()
    return found | {"closing_s": time.perf_counter() - began}


def heaviest_step(loop: Loop, n: int = 256) -> int | None:
    """Of the first n steps, the one whose batch is the largest when padded; None where all samples are alike."""
    lengths = getattr(getattr(loop.loader, "split", None), "lengths", None)
    if lengths is None:
        return None
    return max(range(n), key=lambda step: int(np.asarray(lengths)[loop.loader.ids_at(step)].max()))


def run_s(choices: Choices, step_s: float) -> float:
    """Seconds of the run that is rehearsed, as far as is known."""
    return choices.time_limit_s or choices.n_steps * step_s


def set_pool(loop: Loop, pool: list[Arrays] | None) -> list[Arrays] | None:
    """Put another pool in the place of what the alarm has gathered; that."""
    if loop.alarm is None:
        return None
    before, loop.alarm.sightings.pool = loop.alarm.sightings.pool, pool
    return before


def fill_pool(loop: Loop, limit_s: float) -> None:
    """Show the alarm as many batches as it gathers at a run's start, for the memory that takes; within limit_s."""
    began, place = time.perf_counter(), loop.state.position.step
    while loop.alarm is not None and loop.alarm.sightings.pool is not None and time.perf_counter() - began < limit_s:
        loop.alarm.sightings.see(loop.loader.micro_batches(place, loop.choices.batch))
        place += 1


def shorten(look: Any, n_steps: float, n_samples: int) -> float:
    """Let a look score as many batches as take about as long as `n_steps` updates of `n_samples`, from 2 to N_BATCHES, one of
    them the largest; how many times as long the whole look would be. A forward pass is a third of an update."""
    if isinstance(look, TextLook):
        whole = min(look.n_targets, len(look.text.tokens))
        n = within_reach(3 * n_steps * n_samples / look.batch)
        look.n_targets = min(whole, n * TOKENS_PER_BATCH)
        return whole / look.n_targets
    if not isinstance(look, SampleLook):
        return 1.0
    n = within_reach(3 * n_steps * n_samples / look.size)
    batches, lengths = [b for piece in look.cut for b in piece], whole_lengths(look.split)
    cost = [len(b) if lengths is None else len(b) * int(lengths[look.rows[b]].max()) for b in batches]
    order = sorted(range(len(batches)), key=cost.__getitem__)
    chosen = sorted({order[(i + 1) * len(order) // n - 1] for i in range(min(n, len(order)))})
    look.cut = [[batches[i]] for i in chosen]
    return sum(cost) / sum(cost[i] for i in chosen)


def within_reach(n: float) -> int:
    """Batches of a look that are timed."""
    return max(2, min(N_BATCHES, int(n)))


def state_bytes(loop: Loop) -> int:
    """Weights, optimizer state and average."""
    average = loop.average.values if loop.average is not None else []
    held = [*kept(loop.parts.model).values(), *loop.parts.optimizer.tensors().values(), *average]
    return sum(t.numel() * t.element_size() for t in held)


def change(loop: Loop, **settings: int | None) -> None:
    """Set what the coming steps do beside training."""
    loop.choices = loop.choices.model_copy(update=settings)


def step(loop: Loop, train_step: TrainStep) -> Any:
    """One step as stages/train.train_steps makes it."""
    clock = Clock()
    batches = loop.batches()
    clock.mark("data")
    watch = loop.watch()
    loss, norms, n_targets = train_step(loop.parts, batches, loop.lr(), loop.judge, clock)
    return loop.after(loss, norms, n_targets, clock, watch)


def wall(loop: Loop, train_step: TrainStep) -> float:
    """Seconds of one step, all of it."""
    began = time.perf_counter()
    step(loop, train_step)
    return time.perf_counter() - began


def scratch_run(run: RunFolder, scratch: Path, recipe: Recipe, choices: Choices) -> RunFolder:
    """A run folder that is thrown away: the run's data, and a plan without an end."""
    folder = RunFolder(scratch)
    folder.data.symlink_to(run.data.resolve())
    saves = None if recipe.checkpoint.save_every == "never" else float(NO_END)
    update: dict[str, Any] = {"forks": (), "n_steps": NO_END, "time_limit_s": None, "evaluate_every": None, "signals_every": None,
              "save_every_steps": None, "save_every_s": saves}  # fmt: skip
    body = choices.model_copy(update=update).model_dump(mode="json")
    write_json(folder.plan, {"decisions": [], "choices": body})
    return folder


def mapped(run: RunFolder) -> int:
    """Bytes of the prepared data that training maps."""
    return sum(p.stat().st_size for split in ("train", "validation") for p in run.data.glob(f"{split}*") if p.is_file())
