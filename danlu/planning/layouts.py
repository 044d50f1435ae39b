"""Layouts: which micro-batch, precision, attention, ... fit the memory, and what the chosen one will take.

A Bench remembers every rehearsal of a plan. Layouts that differ only in their micro-batch share a line of memory
(footprint.py), so that what was tried says what need not be. The batch of the update never changes because of memory: a
batch that does not fit is cut into micro-batches, then blocks are recomputed, and only then is it refused. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import exp, log
from typing import Any

from danlu.base.errors import UserError
from danlu.planning.choices import Choices
from danlu.planning.duration import Duration, in_time, step_factor, whole_run
from danlu.planning.footprint import FAR_SLACK, SLACK, Line, Rehearsal, fit, upper
from danlu.planning.prediction import PEAK_BYTES, STEP_S, TRAIN_S, Prediction, predict

MEMORY_SHARE = 0.9
"""Of the free memory, what a layout's upper bound may take. (Fujii 2024, 2411.06465: of 454 runs none whose estimate, by
formula, was below 80% ran out; a measured bound needs less room.)"""
FIRST_S = 0.1
"""Seconds of steps that a whole rehearsal times at least."""
N_FIRST = 3
MEMORY_SD = 1.09
"""One standard deviation of a measured peak, as a factor (37 runs of eleven models: median error 3.5%, 90% of them within
12%: benchmarks/planning_hardware.md)."""
SHAPING = ("device", "threads", "precision", "operations", "attention", "compile", "recompute", "batch", "ema")
"""What two layouts must share to lie on one line of memory, beside the model."""

Rehearse = Callable[[Choices, int, float, bool, int | None], Rehearsal]
"""(choices, at least so many steps, at least so many seconds, whole?, memory ceiling) -> what it took:
training/measure.rehearse."""


@dataclass
class Bench:
    """Rehearses layouts under a memory ceiling and remembers them."""

    rehearse: Rehearse
    limit_bytes: int | None = None
    """Memory that training may take beyond what the process holds; None: no ceiling."""
    seen: list[tuple[Choices, Rehearsal]] = field(default_factory=list)
    """Every rehearsal in its order."""

    def of(
        self, choices: Choices, is_whole: bool = False, n_steps: int = N_FIRST, at_least_s: float = FIRST_S
    ) -> Rehearsal:
        """The rehearsal of a layout, made where it is not known yet."""
        known = self.known(choices, is_whole)
        if known is None:
            known = self.rehearse(choices, n_steps, at_least_s, is_whole, self.limit_bytes)
            self.seen.append((choices, known))
        return known

    def known(self, choices: Choices, is_whole: bool = False) -> Rehearsal | None:
        """The newest rehearsal of a layout, if any."""
        same = (r for c, r in reversed(self.seen) if layout_of(c) == layout_of(choices))
        return next((r for r in same if r.trouble or r.closing_s or not is_whole), None)

    def time_steps(self, choices: Choices, n_steps: int, at_least_s: float) -> list[float]:
        """As stages/train.time_steps; infinite for a layout that does not run or does not fit."""
        if self.bound(choices, infinite_if_unknown=False) > self.limit:
            return [float("inf")] * n_steps
        found = self.of(choices, False, n_steps, at_least_s)
        return list(found.steps) if not found.trouble and self.fits(found) else [float("inf")] * n_steps

    @property
    def limit(self) -> float:
        """The ceiling, or infinity."""
        return float("inf") if self.limit_bytes is None else float(self.limit_bytes)

    def fits(self, found: Rehearsal) -> bool:
        """Whether the upper bound of what was measured is inside the ceiling."""
        return not found.trouble and upper(found.own_bytes) <= self.limit

    def line(self, choices: Choices) -> Line | None:
        """The line of memory that a layout lies on, where a rehearsal of it succeeded."""
        alike = [(c.micro_batch, r) for c, r in self.seen if shape_of(c) == shape_of(choices) and not r.trouble]
        return fit(alike) if alike else None

    def bound(self, choices: Choices, infinite_if_unknown: bool = True) -> float:
        """Upper bound of a layout's own bytes."""
        line = self.line(choices)
        return line.upper(choices.micro_batch) if line else float("inf") if infinite_if_unknown else 0.0

    def fitted(self, choices: Choices, is_open: bool = True, may_recompute: bool = False) -> tuple[Choices, str]:
        """The layout itself where it fits, else the same with the largest micro-batch that does (`is_open`), else with
        blocks recomputed: (choices, why). UserError where nothing fits."""
        found = self.of(choices, is_whole=True)
        if found.trouble and not found.is_out_of_memory:
            raise UserError("The first steps", "must run", got=found.trouble, fix="see the message; it is not memory")
        if self.fits(found):
            return choices, ""
        for recompute in (False, True) if may_recompute and not choices.recompute else (choices.recompute,):
            trial = choices.model_copy(update={"recompute": recompute})
            sizes = [n for n in halves(choices.micro_batch) if recompute or n < choices.micro_batch] if is_open else []
            best = self.largest(trial, sizes or [choices.micro_batch])
            if best is not None:
                told = f"a micro-batch of {choices.micro_batch} would take more than the {self.limit / 1e9:.3g} GB there are"
                return best, told + (", and so blocks are recomputed in backward" if recompute else "")
        most = f"{self.limit / 1e9:.3g} GB"
        raise UserError(
            "Memory", f"must hold one micro-batch of 1 in {most}" if is_open else f"must hold one micro-batch in {most}",
            got="it does not fit", fix="choose a smaller model or context, set train.micro_batch = \"auto\", or free memory",
        )  # fmt: skip

    def largest(self, choices: Choices, sizes: list[int]) -> Choices | None:
        """The first of the micro-batches, largest first, that fits: two small ones tell which to try."""
        for n in sizes[-1:-3:-1]:
            self.of(choices.model_copy(update={"micro_batch": n}))
        for n in sizes:
            trial = choices.model_copy(update={"micro_batch": n})
            if self.bound(trial) <= self.limit and self.fits(self.of(trial, is_whole=True)):
                return trial
        return None

    def whole(self, choices: Choices) -> Rehearsal:
        """All parts of a layout's rehearsal: its own steps, with looks and checkpoints of the nearest whole one where it
        was only timed."""
        own, any_whole = self.known(choices), [r for _, r in self.seen if r.closing_s]
        if own is None or own.trouble:
            raise ValueError("the layout was not rehearsed")
        if own.closing_s or not any_whole:
            return own
        other = any_whole[-1]
        extra = max(0, other.peak_bytes - other.steps_bytes)
        return replace(
            own, watch_s=other.watch_s, look_s=other.look_s, stall_s=other.stall_s, closing_s=other.closing_s,
            peak_bytes=max(own.steps_bytes + extra, other.peak_bytes), state_bytes=other.state_bytes,
        )  # fmt: skip


def layout_of(choices: Choices) -> dict[str, Any]:
    """What decides a step's time and memory."""
    return shape_of(choices) | {"micro_batch": choices.micro_batch}


def shape_of(choices: Choices) -> dict[str, Any]:
    """The same without the micro-batch."""
    return {name: getattr(choices, name) for name in (*SHAPING, "model")}


def halves(n: int) -> list[int]:
    """n, n/2, ... 1, rounded up: the pieces that a batch is cut into, largest first."""
    found = [n]
    while found[-1] > 1:
        found.append((found[-1] + 1) // 2)
    return found


def expected(choices: Choices, bench: Bench, n_cores: int, is_paced: bool = False) -> Iterator[Prediction]:
    """A step, the whole training and its peak memory, from the chosen layout's rehearsal; `is_paced`: the time decides where it
    ends."""
    found = bench.whole(choices)
    n = len(found.steps)
    busy = f", while others used {found.busy:.0%} of the machine" if found.busy > 0.05 else ""
    origin = "rehearsal" if found.busy <= 0.25 else "rehearsal on a busy machine"
    yield predict(
        STEP_S, found.step_s, "s", f"median of {n} steps of a rehearsal{busy}", origin, factor=step_factor(found)
    )
    duration: Duration = whole_run(choices, found, n_cores)
    whole = predict(
        TRAIN_S, duration.total, "s", f"{duration}; each part as rehearsed{busy}", origin, factor=duration.factor
    )
    beside_s, limit_s = duration.startup + duration.closing, choices.time_limit_s
    yield whole if limit_s is None else in_time(whole, limit_s, beside_s, is_paced)
    n_samples = choices.n_steps * choices.batch
    own = found.own_bytes + (found.state_bytes if choices.forks else 0)
    peak = found.process_bytes(own, n_samples)
    top = found.process_bytes(upper(own, SLACK if found.closing_s else FAR_SLACK), n_samples)
    told = f"peak of a rehearsal of {1 + n} steps, a look and a checkpoint; at most {top / 1e6:,.0f} MB is expected"
    factor = max(MEMORY_SD, exp(log(top / peak) / 2))
    yield predict(PEAK_BYTES, peak, "bytes", told, "rehearsal", factor=factor)
