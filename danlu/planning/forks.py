"""When training makes forks of itself to see where it will end, and whether it can afford to. Torch-free.

A fork is a copy of the run that is cooled down over its last COOL of steps and looked at (training/fork.py): what it
shows is the final loss of a run that ends there. Two of them, at half and at all of plan.forecast, give the slope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from danlu.base.errors import UserError
from danlu.planning.choices import Choices

if TYPE_CHECKING:
    from danlu.planning.draft import Draft

WHEN = 10.0
"""Percent of the run after which plan.forecast = "auto" predicts."""
HORIZONS = (0.5, 1.0)
"""Lengths of the forks' runs, as shares of plan.forecast."""
COOL = 0.1
"""Share of a fork's run that is its cool-down (10 to 20% lose little to a longer one: Hagele 2024, 2405.18392)."""
AFFORDABLE = 0.03
"""Most of the run's time that forks may take under "auto", looks included."""
MIN_STEPS = 20
"""Steps that a forecast needs to have seen."""
COLD, HOT = 0.3, 0.7
"""A schedule cools down when its last rate is at most COLD of its peak, and is hot where it is at least HOT of it."""


def with_forks(draft: Draft, choices: Choices, step_s: float, look_s: float) -> Choices:
    """The choices with the forks that plan.forecast asks for, noted as a decision where it is auto; without any, and why."""
    asked: Any = draft.recipe.plan.forecast
    if asked == "never":
        return choices
    end = round(WHEN * choices.n_steps / 100) if asked == "auto" else asked.n_steps(choices.n_steps)
    forks = forks_until(end)
    cost_s = sum(n_cool for _, n_cool in forks) * step_s + (len(forks) + 1) * look_s
    share = cost_s / (choices.n_steps * step_s)
    reason = why_not(draft, choices, end)
    if not reason and asked == "auto" and share > AFFORDABLE:
        reason = f"its forks would take {share:.1%} of the run, more than {AFFORDABLE:.0%}"
    if reason and asked != "auto":
        raise UserError("plan.forecast", f"cannot be made: {reason}", got=str(asked), fix='write "never"')
    if reason:
        draft.derive("plan.forecast", "never", f"no forecast during the run: {reason}")
        return choices
    if asked == "auto":
        said = " and ".join(f"{step} over {n_cool}" for step, n_cool in forks)
        why = f"copies of the run are cooled down at steps {said} steps, about {share:.1%} of the run"
        draft.derive("plan.forecast", f"{end} steps", why)
    return choices.model_copy(update={"forks": forks})


def forks_until(end: int) -> tuple[tuple[int, int], ...]:
    """(step, steps it cools over) of forks whose runs end at the HORIZONS of step `end`."""
    ends = sorted({max(2, round(share * end)) for share in HORIZONS})
    return tuple((last - max(1, round(COOL * last)), max(1, round(COOL * last))) for last in ends)


def why_not(draft: Draft, choices: Choices, end: int) -> str:
    """The reason why there can be no forecast at step `end`, or nothing."""
    schedule: Any = draft.recipe.schedule
    n_steps = choices.n_steps
    first, last = (schedule.lr_at(step, n_steps, 1.0) for step in (forks_until(end)[0][0], n_steps - 1))
    if not draft.n_validation or choices.evaluate_every is None:
        return "training looks at no validation split"
    if end < MIN_STEPS:
        return f"only {end} steps will have been made by then, and {MIN_STEPS} are needed"
    if end > 0.5 * n_steps:
        return f"step {end} is past half of the run's {n_steps}"
    if last > COLD:
        return f"the {schedule.kind} schedule does not cool down, so cooled copies would not show its end"
    if first < HOT:
        return f"the {schedule.kind} schedule is not near its peak when the copies are made"
    return ""
