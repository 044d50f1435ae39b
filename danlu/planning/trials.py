"""Short runs that measurements ask for: what is asked (Trial), what comes back (Outcome). Torch-free.

A measurement is a pure function of Outcomes; the run itself is handed in as a `RunTrial`, so it can be tested with a
made-up one. training/trial.py runs them in memory, by the same update as a whole run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from danlu.planning.choices import Choices
from danlu.planning.layouts import Bench

if TYPE_CHECKING:
    from danlu.planning.journal import Journal

N_BLOCKS = 32
"""Pieces of the validation split that are scored apart, for bootstraps and paired tests."""


@dataclass(frozen=True)
class Trial:
    """A short run that is asked for."""

    choices: Choices
    """How it trains: batch, micro-batch, model and optimizer settings, and n_steps, where its schedule ends."""
    seed: int = 0
    """Of initial weights, order and dropout."""
    until: int | None = None
    """Stop after so many steps although the schedule goes on; None: go to its end."""
    looks: tuple[int, ...] = ()
    """Completed steps after which the validation split is looked at; the last step always is."""
    is_scored: bool = True
    """Whether the validation split is looked at; a measurement that is content with training losses saves that time."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of the recipe, by dotted name: {"model.activation": "gelu"}."""


@dataclass(frozen=True)
class Look:
    """One look at the validation split."""

    step: int
    """Completed updates."""
    loss: float
    """Task units per target."""
    blocks: tuple[tuple[float, int], ...] = ()
    """(loss sum, targets) of each of about N_BLOCKS fixed pieces of the split."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The task's own scores, where they were asked for."""


@dataclass(frozen=True)
class Outcome:
    """What a trial came to."""

    losses: tuple[float, ...]
    """Training loss of each step."""
    grad_norms: tuple[float, ...]
    """Norm of the gradient of each step, before clipping."""
    looks: tuple[Look, ...]
    """In the order of their steps."""
    seconds: float
    """All of it: building, steps, looks."""
    step_s: float
    """Median seconds of a step."""
    diverged: str = ""
    """Why it ended early, or nothing."""

    def tail(self, share: float = 0.2) -> tuple[float, ...]:
        """Training losses of the last `share` of the steps (at least 3): on data not seen before, an estimate of the final
        loss that costs nothing."""
        return self.losses[-max(3, round(share * len(self.losses))) :]

    @property
    def loss(self) -> float:
        """Validation loss at the end; infinite when it diverged, NaN without a validation split."""
        if self.diverged:
            return math.inf
        return self.looks[-1].loss if self.looks else math.nan


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """Back from JSON, where a number that is not finite is null, and curves may have been left out."""

    def real(x: float | None) -> float:
        return math.nan if x is None else x

    looks = tuple(
        Look(k["step"], math.inf if k["loss"] is None else k["loss"], tuple((real(s), n) for s, n in k["blocks"]),
             {name: real(x) for name, x in k["metrics"].items()})
        for k in row["looks"]
    )  # fmt: skip
    losses, norms = (tuple(map(real, row.get(name, ()))) for name in ("losses", "grad_norms"))
    return Outcome(losses, norms, looks, row["seconds"], real(row["step_s"]), row["diverged"])


RunTrial = Callable[[Trial], Outcome]
"""Runs a trial: stages/train.run_trial with a recipe and a run folder."""
TimeSteps = Callable[[Choices, int, float], list[float]]
"""(choices, at least this many steps, at least this many seconds) -> seconds of each: stages/train.time_steps."""


@dataclass(frozen=True)
class Lab:
    """What the plan stage measures with; the pipeline hands it in, because stages do not call one another."""

    time_steps: TimeSteps
    run_trial: RunTrial
    bench: Bench | None = None
    """Rehearsals in child processes; None: steps are timed here, and memory is not measured."""
    journal: Journal | None = None
    """What was measured before, where it is kept."""
