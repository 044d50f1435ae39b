"""Seconds of a whole training: every part measured in a rehearsal, or named as not counted.

    train_s = startup + first step + (steps - 1) mean step + watched steps + looks + checkpoints + closing

The mean, not the median: batches of unequal length are all paid for. One standard deviation on the logarithmic scale
joins what the parts leave open (MODEL_SD), the error of the mean step, and how much of the machine others used meanwhile:
a machine that is disturbed now may be more or less so later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import mean

from danlu.planning.choices import Choices
from danlu.planning.footprint import Rehearsal, spread
from danlu.planning.prediction import Prediction

MODEL_SD = 0.05
"""Of a quiet machine: error of the sum itself, of 13 runs on each of two machines (benchmarks/planning_hardware.md)."""
BUSY_SD = 0.4
"""Of a machine that others use wholly; in proportion to their share."""
BOUNDS, SHARES = ("low95", "low80", "high80", "high95"), (0.99, 0.93, 0.97, 1.0, 1.01)
"""Bounds of a prediction; the value and these as shares of a time budget that the run's pace was cut to."""
BEST_SHARE = 0.7
"""Of the looks during a run, how many find a new best and so save a checkpoint: losses fall, with noise at the end."""


@dataclass(frozen=True)
class Duration:
    """Seconds of a run's parts."""

    startup: float
    steps: float
    watching: float
    looks: float
    checkpoints: float
    closing: float
    forks: float
    """Copies that are cooled down and looked at before and after (the whole split's look at the end is not counted)."""
    factor: float
    """One standard deviation of the whole, as a factor."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.startup + self.steps + self.watching + self.looks + self.checkpoints + self.closing + self.forks

    def __str__(self) -> str:
        parts = ("startup", "steps", "watching", "looks", "checkpoints", "closing", "forks")
        return ", ".join(f"{name} {getattr(self, name):.3g} s" for name in parts)


def whole_run(choices: Choices, found: Rehearsal, n_cores: int) -> Duration:
    """The training that `choices` asks for, from a whole rehearsal of the same layout."""
    n, every = choices.n_steps, choices.evaluate_every
    step_s = mean(found.steps)
    n_looks = 0 if every is None else n // every + (n % every > 0)
    saves = choices.save_every_s is not None or choices.save_every_steps is not None
    steps_s = found.first_s + (n - 1) * step_s
    look_s = choices.look_share * found.look_s
    forks_s = sum(cool for _, cool in choices.forks) * step_s + 2 * len(choices.forks) * look_s
    n_saves = BEST_SHARE * n_looks if saves else 0.0
    if choices.save_every_steps:
        n_saves += n / choices.save_every_steps
    if choices.save_every_s:
        n_saves += steps_s // choices.save_every_s
    beside_s = found.closing_s * min(1.0, choices.threads / n_cores)  # writing shares the processors with training
    n_watched = 0 if choices.signals_every is None else 1 + n // choices.signals_every
    busy_sd = BUSY_SD * found.busy
    factor = math.exp(math.sqrt(MODEL_SD**2 + spread(found.steps) ** 2 + busy_sd**2))
    return Duration(
        found.startup_s, steps_s, n_watched * found.watch_s, n_looks * look_s, n_saves * (found.stall_s + beside_s),
        found.closing_s, forks_s, factor,
    )  # fmt: skip


def in_time(whole: Prediction, limit_s: float, beside_s: float, is_paced: bool) -> Prediction:
    """Seconds of a training that a time budget ends, and what is not counted in it: never more; where the time decides the
    number of steps (training/pace.py), close to it."""
    if not is_paced:
        ends = {name: min(getattr(whole, name), beside_s + limit_s) for name in ("value", *BOUNDS)}
        return replace(whole, **ends)
    ends = {name: beside_s + share * limit_s for name, share in zip(("value", *BOUNDS), SHARES, strict=True)}
    why = f"the time budget of {limit_s:g} s, and {beside_s:.2g} s before and after it"
    return replace(whole, **ends, why=why, origin="time budget")


def step_factor(found: Rehearsal) -> float:
    """One standard deviation, as a factor, of the median step."""
    return math.exp(math.sqrt(MODEL_SD**2 + spread(found.steps) ** 2 + (BUSY_SD * found.busy) ** 2))
