"""danlu plan RECIPE --on "1024 x h100": memory of a device, layout, time and cost of a decoder's training on machines that
one does not have. Nothing is run: every layout is enumerated, those whose memory may not fit are dropped, and the rest are
timed by formula (parallel_layouts.py, roofline.py). How far off that is was measured on published runs
(benchmarks/published_runs.md); the intervals are those errors. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from danlu.base.units import short_count
from danlu.planning.accelerators import Cluster
from danlu.planning.parallel_layouts import USABLE, DeviceMemory, Job, Layout, Recompute, device_memory
from danlu.planning.prediction import PEAK_BYTES, STEP_S, TRAIN_S, Z80, Prediction, predict, unknown
from danlu.planning.roofline import FITTED, Efficiency, StepTime, step_time

ORIGIN = "roofline"
STEP_FACTOR, RUN_FACTOR, MEMORY_FACTOR = 1.17, 1.25, 1.25
"""One standard deviation of steps and of whole runs (published_runs.md, each study held out), and of memory (a guess: the
plan leaves USABLE's room)."""
UNSEEN_FACTOR = 1.4
"""The same of steps on accelerators of which no published run was at hand, or one."""
SEEN = ("h100", "a100-80gb", "a100-40gb")
LOST = 1.11
"""Device-hours of a whole run over those of its steps: restarts, looks, checkpoints, slow days (median of published)."""
ON_TIME = 1.01
"""One standard deviation, as a factor, of the seconds of a run whose length is a time."""
MOST_MICRO, MOST_CONTEXT, LEAST_PIECE = 64, 16, 2048
"""Samples of a micro-batch, ways of context parallelism, and tokens that each of those keeps, at most and at least."""
N_SHOWN = 3


@dataclass(frozen=True)
class Candidate:
    """A layout with what it takes."""

    layout: Layout
    time: StepTime
    memory: DeviceMemory


@dataclass(frozen=True)
class Estimate:
    """What a training would be on a cluster."""

    cluster: Cluster
    job: Job | None
    """None where the model has no formulas."""
    candidates: tuple[Candidate, ...]
    """The fastest that fits, and the fastest of other kinds; none: nothing fits."""
    predictions: tuple[Prediction, ...]
    notes: tuple[str, ...] = ()

    def prediction(self, name: str) -> Prediction:
        """By its name."""
        return next(p for p in self.predictions if p.name == name)


def layouts(job: Job, cluster: Cluster) -> Iterator[Layout]:
    """Every layout that uses all devices and divides heads, layers, context and batch evenly enough to run."""
    shape, n = job.shape, cluster.n_devices
    for t in powers(min(16 if cluster.device.node > 16 else 8, cluster.node)):
        if n % t or shape.n_heads % t or max(shape.n_kv_heads, t) % min(shape.n_kv_heads, t):
            continue
        for c in powers(min(MOST_CONTEXT, shape.context // LEAST_PIECE or 1)):
            for p in range(1, min(shape.n_layers, 128) + 1):
                if n % (t * c * p) == 0 and job.batch % (n // (t * c * p)) == 0:
                    yield from variants(job, Layout(n // (t * c * p), t, p, c))


def variants(job: Job, base: Layout) -> Iterator[Layout]:
    """Micro-batches, ZeRO stages, recomputation and chunks for given ways of parallelism."""
    n_layers, again = job.shape.n_layers, ("none", "full") if job.attention == "fused" else ("selective", "full")
    chunks = {v for v in (1, 2, 4, 8) if base.pipeline > 1 and n_layers % (base.pipeline * v) == 0} or {1}
    for b in powers(min(MOST_MICRO, job.batch // base.data)):
        if job.batch // base.data % b:
            break
        for zero in (1, 3) if base.pipeline == 1 and base.shards > 1 else (1,):
            for recompute in again:
                for v in {1, max(chunks)}:
                    kept: Recompute = recompute  # type: ignore[assignment]
                    yield replace(base, zero=zero, micro_batch=b, recompute=kept, chunks=v)


def powers(most: int) -> list[int]:
    """1, 2, 4, .. up to `most`."""
    return [2**i for i in range(max(1, most).bit_length())]


def search(job: Job, cluster: Cluster, eff: Efficiency = FITTED) -> list[Candidate]:
    """Layouts whose memory fits with room to spare (USABLE), the fastest first; one for every way of splitting the model."""
    best: dict[Any, Candidate] = {}
    for layout in layouts(job, cluster):
        memory = device_memory(job, layout)
        if memory.total > USABLE * cluster.device.memory:
            continue
        found = Candidate(layout, step_time(job, layout, cluster, eff), memory)
        kind = (layout.tensor, layout.pipeline, layout.context, layout.zero == 3)
        if kind not in best or found.time.total < best[kind].time.total:
            best[kind] = found
    return sorted(best.values(), key=lambda candidate: candidate.time.total)


def least_memory(job: Job, cluster: Cluster) -> float:
    """Bytes a device that the most sparing layout takes; infinite when no layout divides the work."""
    return min((device_memory(job, layout).total for layout in layouts(job, cluster)), default=math.inf)


def estimate(job: Job, cluster: Cluster, n_tokens: float, limit_s: float | None = None) -> Estimate:
    """Memory, layout, seconds and dollars of a training of `n_tokens`, or of as many as `limit_s` seconds allow."""
    found = search(job, cluster)
    if not found:
        return nothing_fits(job, cluster)
    best, device = found[0], cluster.device
    seen = device.name in SEEN
    step_factor = STEP_FACTOR if seen else UNSEEN_FACTOR
    run_factor = RUN_FACTOR if seen else RUN_FACTOR * UNSEEN_FACTOR / STEP_FACTOR
    step_s = best.time.total
    train_s = LOST * step_s * n_tokens / job.tokens
    if limit_s is not None:  # a run under a time budget ends with it (training/pace.py)
        train_s, run_factor = limit_s, ON_TIME
    hours = train_s / 3600 * cluster.n_devices
    low, usual, high = device.price
    spread = math.log(high / low) / (2 * Z80)
    cost_factor = math.exp(math.hypot(math.log(run_factor), spread))
    mfu = job.shape.flops_per_token() * job.tokens / step_s / cluster.n_devices / device.flops
    checked = "published runs, each study held out" if seen else "runs on other accelerators: none of this one"
    why = f"{best.layout}; {where(best.time)}; error measured on {checked}"
    told = {
        "memory": f"a device: {parts(best.memory)}",
        "rate": f"all devices; {mfu:.0%} of peak in the model's own FLOPs",
        "run": f"{short_count(n_tokens)} tokens, and {LOST - 1:.0%} for restarts, looks and checkpoints"
        if limit_s is None
        else "the time budget",
        "cost": f"{usual:g} $ a device-hour, {low:g} to {high:g} ({device.priced})",
    }
    predictions = (
        predict(PEAK_BYTES, best.memory.total, "bytes", told["memory"], ORIGIN, factor=MEMORY_FACTOR),
        predict(STEP_S, step_s, "s", why, ORIGIN, factor=step_factor),
        predict("tokens_per_s", job.tokens / step_s, "tokens/s", told["rate"], ORIGIN, factor=step_factor),
        predict(TRAIN_S, train_s, "s", told["run"], ORIGIN, factor=run_factor),
        predict("device_hours", hours, "h", "time x devices", ORIGIN, factor=run_factor),
        predict("cost_usd", usual * hours, "$", told["cost"], ORIGIN, factor=cost_factor),
    )
    notes = (f"{device.title}: {device.flops / 1e12:g} dense TFLOP/s; {device.checked}: {device.source}",)
    return Estimate(cluster, job, tuple(found[:N_SHOWN]), predictions, notes)


def nothing_fits(job: Job, cluster: Cluster) -> Estimate:
    """Don't know, and what it would take."""
    least = least_memory(job, cluster)
    if math.isinf(least):
        why = f"no layout splits a batch of {job.batch} and {job.shape.n_heads} heads over {cluster.n_devices:,} devices evenly"
    else:
        room = USABLE * cluster.device.memory
        why = f"no layout fits: the most sparing one takes {least / 1e9:.1f} GB a device, and {room / 1e9:.1f} GB are safe to plan with"
        enough = enough_devices(job, cluster)
        why += f"; {enough:,} devices would do" if enough else ""
    units = {PEAK_BYTES: "bytes", STEP_S: "s", TRAIN_S: "s", "cost_usd": "$"}
    return Estimate(cluster, job, (), tuple(unknown(name, unit, why) for name, unit in units.items()), (why,))


def enough_devices(job: Job, cluster: Cluster) -> int | None:
    """The next doubling of devices at which some layout fits; None within 64 times."""
    for doubling in range(1, 7):
        larger = replace(cluster, n_devices=cluster.n_devices * 2**doubling)
        if least_memory(job, larger) <= USABLE * cluster.device.memory:
            return larger.n_devices
    return None


def where(time: StepTime) -> str:
    """Where a step's time goes, the largest parts first."""
    shares = sorted(vars(time).items(), key=lambda part: -part[1])
    return ", ".join(f"{seconds / time.total:.0%} {name}" for name, seconds in shares if seconds >= 0.02 * time.total)


def parts(memory: DeviceMemory) -> str:
    """Where memory goes, in GB."""
    return ", ".join(f"{name} {n / 1e9:.1f}" for name, n in vars(memory).items() if n >= 0.05e9) + " GB"


def why_not(candidate: Candidate, best: Candidate) -> str:
    """Why a runner-up is behind."""
    slower = candidate.time.total / best.time.total - 1
    grown = {name: seconds - getattr(best.time, name) for name, seconds in vars(candidate.time).items()}
    name = max(grown, key=lambda part: grown[part])
    return f"{slower:+.1%} time, most of it {name}; {candidate.memory.total / 1e9:.1f} GB a device"
