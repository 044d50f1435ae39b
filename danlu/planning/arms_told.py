"""A finished comparison of arms in words and numbers: what tune/result.json, the screen and the report say."""

from __future__ import annotations

from statistics import mean, median
from typing import Any

from danlu.planning import paired
from danlu.planning.arms import Comparison, Contest, Standing, compared
from danlu.planning.trials import Outcome

EFFECTS = (0.001, 0.003, 0.01)
"""Effects, as shares of the default's value, that the pairs needed are told for."""


def concluded(contest: Contest) -> dict[str, Any]:
    """The result of a contest, for JSON."""
    default, yardstick = contest.default, contest.yardstick
    told = [of_comparison(contest, s) for s in contest.others]
    better = [row for row in told if row["found"] == "better"]
    best = max(better, key=lambda row: row["mean"], default=None)
    lost = bool(told) and all(row["found"] in ("worse", "diverged") for row in told)
    winner = best["arm"] if best else default.arm.name
    return {
        "metric": yardstick.name, "higher_is_better": yardstick.higher_is_better,
        "default": default.arm.name, "winner": winner, "is_measurable": bool(best) or lost,
        "verdict": verdict_of(best, lost, default.arm.name), "level": paired.LEVEL, "power": paired.POWER,
        "n_steps": default.arm.choices.n_steps, "arms": [of_arm(contest, s) for s in contest.standings],
        "comparisons": told,
        "cost": {
            "runs": len(contest.spent), "seconds": round(sum(o.seconds for o in contest.spent), 2),
            "budget": f"{contest.budget.amount:g} {contest.budget.unit}",
        },
    }  # fmt: skip


def verdict_of(best: dict[str, Any] | None, lost: bool, default: str) -> str:
    """One sentence on all arms."""
    if best:
        return f"{best['arm']} wins. {best['sentence']}"
    if lost:
        return f"{default} wins: it is the default, and every other arm is measurably worse."
    return f"No measurable difference: keep {default} (the default)."


def of_arm(contest: Contest, standing: Standing) -> dict[str, Any]:
    """One arm's rate, runs and speed."""
    values = [contest.yardstick.of(o) for o in standing.outcomes if not o.diverged]
    steps: list[Outcome] = [o for o in standing.outcomes if not o.diverged]
    return {
        "name": standing.arm.name, "settings": dict(standing.arm.settings),
        "lr": standing.arm.choices.optimizer["lr"], "rate_is_given": standing.arm.rate_is_given,
        "bracket": [[lr, loss if loss < float("inf") else None] for lr, loss in standing.rates],
        "values": values, "mean": mean(values) if values else None,
        "step_s": median(o.step_s for o in steps) if steps else None,
    }  # fmt: skip


def of_comparison(contest: Contest, standing: Standing) -> dict[str, Any]:
    """One arm against the default."""
    row: dict[str, Any] = {"arm": standing.arm.name, "found": standing.found}
    if standing.found == "diverged" or len(standing.outcomes) < 2:
        why = "diverged" if standing.found == "diverged" else "the budget was spent before two pairs of runs"
        return row | {"mean": None, "differences": [], "sentence": f"{standing.arm.name}: {why}."}
    numbers = compared(contest.default, standing, contest.yardstick)
    base = abs(mean(contest.yardstick.of(o) for o in contest.default.outcomes[: numbers.n])) or 1.0
    needed = {f"{effect:.1%}": paired.pairs_needed(numbers.sd, effect * base, numbers.level) for effect in EFFECTS}
    return row | {
        "n": numbers.n, "mean": numbers.mean, "low": finite(numbers.mean - numbers.half),
        "high": finite(numbers.mean + numbers.half), "level": numbers.level, "sd": numbers.sd, "base": base,
        "evaluation_se": numbers.evaluation_se, "p": numbers.p, "smallest": finite(numbers.smallest),
        "differences": contest.differences(standing), "pairs_needed": needed,
        "sentence": sentence(contest, standing, numbers, base),
    }  # fmt: skip


def edges(contest: Contest) -> list[str]:
    """A note for each arm whose best rate lies at an end of its bracket."""
    notes = []
    for standing in contest.standings:
        tried = sorted(standing.rates)
        if tried and min(tried, key=lambda point: point[1]) in (tried[0], tried[-1]):
            notes.append(
                f"{standing.arm.name}: its best learning rate lies at an end of those tried ({tried[0][0]:.3g} to "
                f"{tried[-1][0]:.3g}), so it may do better at another: set optimizer.lr, or a longer --length."
            )
        loser = standing if standing.found == "worse" else contest.default
        if standing.found in ("better", "worse") and not loser.has_appealed and not loser.arm.rate_is_given:
            notes.append(
                f"{loser.arm.name} lost at a rate that was fitted on one seed; a larger --budget would fit it once more."
            )
    return notes


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if abs(value) < float("inf") else None


def sentence(contest: Contest, standing: Standing, numbers: Comparison, base: float) -> str:
    """What was found of one arm, with its interval."""
    metric, default = contest.yardstick.name, contest.default.arm.name
    up = "higher" if (numbers.mean > 0) == contest.yardstick.higher_is_better else "lower"
    ends = sorted((abs(numbers.mean) - numbers.half, abs(numbers.mean) + numbers.half))
    interval = f"{ends[0] / base:.2%} to {ends[1] / base:.2%} at {100 - 100 * numbers.level:.3g}%, {numbers.n} pairs"
    effect = f"its {metric} is {abs(numbers.mean) / base:.2%} {up} than that of {default} ({interval})"
    missed = f"an effect of {numbers.smallest / base:.2%} would have been found with {paired.POWER:.0%} chance"
    if numbers.smallest == float("inf"):
        missed = f"fewer than {paired.FIRST} pairs find nothing"
    ends_with = {
        "better": "",
        "worse": "",
        "no difference": "; every pair gave the very same numbers",
        "futile": f"; not measurable, and more runs within the budget would not change that: {missed}",
        "budget spent": f"; not measurable within the budget: {missed}",
        "split too small": "; the seeds agree, but the validation split is too small to say that new data would",
    }
    return f"{standing.arm.name}: {effect}{ends_with[standing.found]}."
