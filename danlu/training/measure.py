"""Rehearsals: the first steps of a run, trained for real and thrown away, in a child process with a memory ceiling.

The child goes through the same Loop as the run: it opens it, trains, looks at the validation split, writes a checkpoint
into a scratch folder, and says how long each part took and how much memory it held. What happens to the child (a crash,
an allocation refused) is a result, and harms nothing.

The child is a fork, so torch is not imported anew (milliseconds instead of seconds). Threads do not survive a fork, but
OpenMP keeps a pool for each thread that opens a parallel region, so the child works in a new thread, which gets a new
pool. On a GPU, which a fork cannot use, a rehearsal runs in this process: there a refused allocation is an exception.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from danlu.base.runfolder import RunFolder, write_json
from danlu.build import set_machine
from danlu.planning.choices import Choices
from danlu.planning.footprint import OUT_OF_MEMORY, Rehearsal
from danlu.recipe import Recipe
from danlu.training.loop import Loop
from danlu.training.trial import TrainStep
from danlu.training.update import Clock
from danlu.training.usage import peak_bytes, reset_peak
from danlu.training.validation import SAMPLES_PER_BATCH, TOKENS_PER_BATCH, SampleLook, TextLook

NO_END = 1_000_000
"""Steps of a rehearsal's schedule, and seconds between its checkpoints: it is stopped by hand."""
LIMIT_S = 600.0
"""A child that takes longer is ended."""
M_ARENA_MAX = -8
"""mallopt(3): the child's new thread is to use the main heap, as the run's main thread does."""
N_BATCHES = 4
"""Batches of a look that are timed; the others are taken to be alike."""
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a child gets when its parent dies."""


def rehearse(
    recipe: Recipe, run: RunFolder, train_step: TrainStep, choices: Choices, n_steps: int, at_least_s: float,
    is_whole: bool = True, ceiling_bytes: int | None = None,
) -> Rehearsal:  # fmt: skip
    """Train at least `n_steps` steps and `at_least_s` seconds after one to warm up; a whole rehearsal also measures,
    looks and saves as the run will. The child may take `ceiling_bytes` beyond what this process holds."""
    task = partial(rehearsed, recipe, run, train_step, choices, n_steps, at_least_s, is_whole)
    with tempfile.TemporaryDirectory(dir=run.path, prefix=".rehearsal-") as scratch:
        started = time.perf_counter()
        if choices.device == "cpu" and sys.platform == "linux":
            found = in_child(partial(task, Path(scratch)), ceiling_bytes)
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


def in_child(task: Callable[[], dict[str, Any]], ceiling_bytes: int | None = None, limit_s: float = LIMIT_S) -> Any:
    """The task's result (JSON-able) from a forked child; {"trouble": why} when there is none."""
    reads, writes = os.pipe()
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: see the file's header
        pid = os.fork()
    if pid == 0:
        os.close(reads)
        become_child(task, writes, ceiling_bytes, parent)
    os.close(writes)
    try:
        told = read_all(reads, limit_s)
    finally:
        os.close(reads)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if told is None:
        return {"trouble": f"took longer than {limit_s:g} s"}
    if told:
        return json.loads(told)
    return {"trouble": OUT_OF_MEMORY if code == -signal.SIGKILL else f"ended with code {code}"}


def become_child(task: Callable[[], dict[str, Any]], writes: int, ceiling_bytes: int | None, parent: int) -> None:
    """Do the task in a new thread, write its result, and end this process without any of the parent's clean-up."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGTERM):  # a Ctrl-C reaches the parent, and its end ends the child
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if ceiling_bytes is not None:
            most = memory_lines()["VmData"] + ceiling_bytes
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
        told: list[bytes] = []
        thread = threading.Thread(target=lambda: told.append(json.dumps(answer(task)).encode()))
        thread.start()
        thread.join()
        with os.fdopen(writes, "wb") as pipe:
            pipe.write(told[0] if told else b"")
        os._exit(0)
    finally:
        os._exit(1)


def answer(task: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The task's result, or its trouble."""
    try:
        return task()
    except MemoryError:
        return {"trouble": OUT_OF_MEMORY}
    except Exception as error:
        is_memory = "allocate memory" in str(error) or "Cannot allocate" in str(error)
        return {"trouble": OUT_OF_MEMORY if is_memory else f"{type(error).__name__}: {error}"}


def read_all(reads: int, limit_s: float) -> bytes | None:
    """What the child wrote until it closed the pipe; None when that takes too long."""
    told, deadline = b"", time.monotonic() + limit_s
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reads], [], [], left)[0]:
            return None
        piece = os.read(reads, 1 << 16)
        if not piece:
            return told
        told += piece


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
        steps = [wall(loop, train_step) for _ in range(n_steps)]
        while sum(steps) < at_least_s:
            steps.append(wall(loop, train_step))
        heavy = heaviest_step(loop)
        if heavy is not None:
            loop.state.position.batch_offset = heavy - loop.state.position.step
            step(loop, train_step)
        found |= {"steps": steps, "steps_bytes": peak_bytes(device), "busy": busy.share()}
        if is_whole:
            found |= rest_of_run(recipe, loop, train_step, median(steps))
            closing = time.perf_counter()
            loop.writer.close()
            found["closing_s"] += time.perf_counter() - closing
        found |= {"peak_bytes": peak_bytes(device), **before}
    lines = memory_lines() if device.type == "cpu" else {}
    return found | {"file_bytes": lines.get("RssFile", 0)}


def rest_of_run(recipe: Recipe, loop: Loop, train_step: TrainStep, step_s: float) -> dict[str, float]:
    """What does not happen in every step: a measured one, a look with a checkpoint, the last checkpoint."""
    found = {"watch_s": 0.0, "look_s": 0.0, "stall_s": 0.0}
    if recipe.train.signals != "never":
        change(loop, signals_every=loop.state.position.step + 1)
        found["watch_s"] = max(0.0, wall(loop, train_step) - step_s)
        change(loop, signals_every=None)
    if recipe.evaluate.every != "never":
        change(loop, evaluate_every=loop.state.position.step + 1)
        times = shorten(loop.validation)
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


def shorten(look: Any) -> float:
    """Let a look score N_BATCHES batches only, one of them the largest, and say how many times as long it would be."""
    if isinstance(look, TextLook):
        whole = min(look.n_targets, len(look.text.tokens))
        look.n_targets = min(whole, N_BATCHES * TOKENS_PER_BATCH)
        return whole / look.n_targets
    if not isinstance(look, SampleLook):
        return 1.0
    offsets, lengths = getattr(look.split, "offsets", None), getattr(look.split, "lengths", None)
    if lengths is not None and offsets is not None and len(offsets) == len(lengths) + 1:
        lengths = np.diff(offsets)  # whole ones: looks crop nothing
    size = min(SAMPLES_PER_BATCH, getattr(look.split, "at_once", SAMPLES_PER_BATCH))
    pieces = [look.rows[i : i + size] for i in range(0, len(look.rows), size)]
    cost = [len(p) if lengths is None else len(p) * int(np.asarray(lengths)[p].max()) for p in pieces]
    order = sorted(range(len(pieces)), key=cost.__getitem__, reverse=True)
    chosen = [order[0], *order[len(order) // 2 : len(order) // 2 + N_BATCHES - 1]] if len(order) > N_BATCHES else order
    look.rows = np.concatenate([pieces[i] for i in chosen])
    return sum(cost) / sum(cost[i] for i in chosen)


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
    update = {"n_steps": NO_END, "time_limit_s": None, "evaluate_every": None, "signals_every": None,
              "save_every_steps": None, "save_every_s": saves}  # fmt: skip
    body = choices.model_copy(update=update).model_dump(mode="json")
    write_json(folder.plan, {"decisions": [], "choices": body})
    return folder


def mapped(run: RunFolder) -> int:
    """Bytes of the prepared data that training maps."""
    return sum(p.stat().st_size for split in ("train", "validation") for p in run.data.glob(f"{split}*") if p.is_file())


def memory_lines() -> dict[str, int]:
    """Bytes by name from /proc/self/status: VmHWM, VmRSS, VmData, RssAnon, RssFile, ...; {} where there is none."""
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: 1024 * int(rest.split()[0]) for name, _, rest in (s.partition(":") for s in lines) if "kB" in rest}


def held(prefix: str, device: str) -> Mapping[str, int]:
    """Memory of this process now: its own, and of files (libraries, mapped data); of a GPU, what is given out there."""
    if device == "cuda":
        return {f"{prefix}own_bytes": torch.cuda.memory_allocated(), f"{prefix}file_bytes": 0}
    lines = memory_lines()
    own = lines.get("RssAnon", 0) + lines.get("RssShmem", 0)
    return {f"{prefix}own_bytes": own, f"{prefix}file_bytes": lines.get("RssFile", 0)}


class Busy:
    """Which share of the machine's processors others used since this was made (Linux)."""

    def __init__(self) -> None:
        self.at = self.now()

    @staticmethod
    def now() -> tuple[float, float, float]:
        """(busy seconds of all processors, seconds of all, own seconds)."""
        path = Path("/proc/stat")
        if not path.is_file():
            return 0.0, 0.0, 0.0
        ticks = [int(word) for word in path.read_text(encoding="ascii").partition("\n")[0].split()[1:9]]
        per_s = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - ticks[3] - ticks[4]) / per_s, sum(ticks) / per_s, time.process_time()

    def share(self) -> float:
        """0 (alone) to 1."""
        busy, whole, own = (b - a for a, b in zip(self.at, self.now(), strict=True))
        return min(1.0, max(0.0, (busy - own) / whole)) if whole > 0 else 0.0
