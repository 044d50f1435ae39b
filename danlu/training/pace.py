"""Under a time budget the cool-down begins when the time that is left is what it takes: a run ends cooled, and on time, whatever
the machine's pace. The plan's number of steps is what it expected.

Only schedules with a stable phase can do so: their rates up to the cool-down do not depend on where the run ends. What was decided
is part of the checkpoint (training/state.Position), so a resumed run keeps it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

from danlu.planning.choices import Choices
from danlu.training.state import State

SPARE = 0.02
"""Share of the time left that is kept back until the cool-down begins."""
LEAST = 3
"""Steps whose pace is believed; before, the plan's number of steps."""
TOLD = 0.05
"""A share of the planned steps by which the end moves, from which it is told."""


class Pace:
    """Where a run ends, and at which rate it goes there."""

    def __init__(self, schedule: Any, choices: Choices, state: State, times: Iterable[float] = ()) -> None:
        self.schedule, self.choices, self.state = schedule, choices, state
        is_stable = schedule.stable_until(choices.n_steps) is not None
        self.limit_s = choices.time_limit_s if is_stable else None
        self.times = array("d", times if self.limit_s is not None else ())
        """Seconds of the run after each of its steps."""
        self.expected = self.n_steps
        """Where it ends at the pace so far."""

    @property
    def n_steps(self) -> int:
        """Of the whole run: as decided, else as planned."""
        return self.state.position.n_steps or self.choices.n_steps

    @property
    def is_over(self) -> bool:
        """Whether all steps are done; not before the end is decided, where the time decides."""
        position = self.state.position
        return position.step >= self.n_steps and (self.limit_s is None or position.n_steps > 0)

    @property
    def stable_end(self) -> int | None:
        """The step at which the cool-down begins, whose checkpoint is kept for a longer run to go on from; None where there is
        none, or it is not known yet."""
        if self.limit_s is not None:
            return self.state.position.cools_from if self.state.position.n_steps else None
        end: int | None = self.schedule.stable_until(self.choices.n_steps)
        return end

    def lr(self) -> float:
        """The learning rate of the coming step."""
        position, peak = self.state.position, self.choices.optimizer["lr"]
        step, planned = position.step, self.choices.n_steps
        if self.limit_s is None:
            return float(self.schedule.lr_at(step, planned, peak))
        start = position.cools_from if position.n_steps else step
        rate = float(self.schedule.lr_at(max(0, min(start, self.schedule.stable_until(planned))), planned, peak))
        if not position.n_steps:
            return rate
        return rate * float(self.schedule.cooled((step - start) / max(1, position.n_steps - start)))

    def see(self, reserve_s: float) -> str:
        """Take the pace after a step, and decide once it is time to cool down; what there is to tell of it. `reserve_s` is kept for
        what comes after the last step, and two steps more. A cool-down that would not be done in time is cut short."""
        position, limit_s = self.state.position, self.limit_s
        if limit_s is None:
            return ""
        self.times.append(position.elapsed_s)
        left_s = (1.0 if position.n_steps else 1 - SPARE) * (limit_s - position.elapsed_s - reserve_s)
        n_steps = self.n_steps
        if len(self.times) >= LEAST:
            n_steps = position.step + max(0, int(left_s / self.step_s()) - 2)
        self.expected = n_steps
        if position.n_steps:
            position.n_steps = min(position.n_steps, n_steps)
        elif position.step >= self.schedule.stable_until(n_steps):
            position.n_steps, position.cools_from = n_steps, position.step
            planned = self.choices.n_steps
            if abs(n_steps - planned) > TOLD * planned:
                then = "the rate goes down from here on" if self.schedule.cooled(1.0) < 1 else "training ends there"
                return f"at this pace the {limit_s:g} s end with step {n_steps:,}, not {planned:,}: {then}"
        return ""

    def step_s(self) -> float:
        """Mean seconds of the later half of the steps, looks and checkpoints counted."""
        half = len(self.times) // 2
        return max(1e-9, (self.times[-1] - self.times[half - 1]) / (len(self.times) - half))
