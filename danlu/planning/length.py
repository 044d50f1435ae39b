"""Where a run's loss will end, said while it is young, and which lengths are worth it. Torch-free.

    forecast(seen) -> Forecast                        at plan.forecast of the run, from its curve and its cooled copies

What is predicted is the drop of the log loss from the last cooled copy to the run's end: the laws of planning/ensemble.py,
averaged, and, where the same model was trained on the same data before, where those runs ended. How far the laws miss was
measured on logged runs (benchmarks/forecast.md); where they may miss by more than TOO_WIDE, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from danlu.planning import ends, ensemble
from danlu.planning.curves import Values
from danlu.planning.prediction import FINAL_LOSS, VALIDATION_LOSS, Z80, Prediction, predict, unknown
from danlu.planning.seen import Earlier, ForkSeen, Seen, Setting
from danlu.planning.worth import Lengths

UNIT = "per target"
WEIGHTS = {"annealing": 0.4, "noise": 0.3, "family": 0.2, "bent": 0.1}
"""Of the laws' drops."""
DROP_SHARE, FLOOR = 0.22, 0.015
"""One standard deviation of the final log loss: this share of the drop still to come for each factor e of steps still to go,
and never less than the floor."""
AGREE = 2.0
"""Standard deviations of their difference, beyond which the laws do not hold and earlier runs alone are believed."""
SURE = 0.10
"""Half-width of the 80% interval up to which a length is recommended."""
TOO_WIDE, TOO_WIDE_YOUNG, YOUNG = 0.20, 0.15, 200
"""Half-width of the 80% interval, in log loss, beyond which the answer is "don't know"; the same where fewer than YOUNG steps
were seen: there a fall may still be followed by another, steeper one (a vision transformer's on the logged runs)."""
RISING = 0.01
"""Rise of the cooled loss, in logs, that counts as over-fitting."""
FALLEN, STILL = 0.30, 0.02
"""A training loss that fell by less than FALLEN since its first steps, in logs, while the cooled loss moves by more than
STILL between the copies, has its fall before it. (A language model falls by so much on the frequencies of its tokens.)"""
NOISY = 0.15
"""Fall of the log loss by a short cool-down, beyond which the end depends on the cool-down more than on any law of length."""
STEEPER = 1.2
"""A slope of the log loss over the log step that grew by this factor from the first to the second half of what was seen is
no law's: all of them flatten."""
WORTHLESS_PASSES = 1 + ensemble.REPEATS_WORTH
"""Over the data; beyond, further ones add little to what is learned, and much to over-fitting."""


@dataclass(frozen=True)
class Forecast:
    """train/forecast.json."""

    step: int
    """Completed updates when it was made."""
    predictions: Sequence[Prediction]
    sentence: str
    """For the screen."""
    curve: Sequence[tuple[int, float]] = ()
    """(step, expected loss) of looks to come."""
    points: dict[str, Any] = field(default_factory=dict)
    """Lengths worth knowing: {"recommended": {"steps", "units", "seconds", "loss"}}."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """Forks, laws and earlier runs."""

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "step": self.step, "predictions": [p.to_json() for p in self.predictions], "sentence": self.sentence,
            "curve": [list(point) for point in self.curve], "points": self.points, "evidence": self.evidence,
        }  # fmt: skip


def forecast(seen: Seen) -> Forecast:
    """From the run's own past, and from where earlier ones ended."""
    step = len(seen.losses)
    reason = why_unknown(seen) or ("" if seen.earlier else why_young(seen))
    if reason:
        return untold(step, reason, evidence_of(seen, {}))
    points = seen.points()
    laws = ensemble.all_laws(points, np.asarray(seen.rates, float), [copy_rates(seen, fork) for fork in seen.forks])
    mean, sd, by = combined(math.log(points.cooled[-1]), laws, seen)
    evidence = evidence_of(seen, laws)
    if sd * Z80 > (TOO_WIDE if step >= YOUNG else TOO_WIDE_YOUNG):
        between = f"{math.exp(mean - Z80 * sd):.3g} and {math.exp(mean + Z80 * sd):.3g}"
        return untold(step, f"the run is too young: its loss falls so fast that it may end between {between}", evidence)
    found = predict(FINAL_LOSS, whole_ratio(seen) * math.exp(mean), UNIT, told(seen, by), by, factor=math.exp(sd))
    last = predict(VALIDATION_LOSS, math.exp(mean), UNIT, told(seen, by), by, factor=math.exp(sd))
    if seen.repeats_much:
        why = f"{seen.passes:.0f} passes over the data: the last look may be worse than the best one"
        last = unknown(VALIDATION_LOSS, UNIT, why, by)
    lengths = Lengths(seen, points, mean)
    worth = lengths.points() if sd * Z80 <= SURE else {}
    said = f"forecast: final validation loss {found.value:.4g} (80%: {found.low80:.4g} to {found.high80:.4g})"
    said += f"; {worth['recommended']['said']}" if "recommended" in worth else ""
    return Forecast(step, [found, last], said, lengths.curve(), worth, evidence)


def untold(step: int, reason: str, evidence: dict[str, Any]) -> Forecast:
    """The answer "don't know"."""
    nothing = [unknown(name, UNIT, reason, "forecast") for name in (FINAL_LOSS, VALIDATION_LOSS)]
    return Forecast(step, nothing, f"forecast: the final validation loss cannot be told: {reason}", evidence=evidence)


def why_unknown(seen: Seen) -> str:
    """Why nothing can be said whatever the laws say, or nothing."""
    losses = [fork.loss for fork in seen.forks]
    if len(losses) < 2:
        return "fewer than two copies were cooled"
    if any(loss is None for loss in losses):
        return "a cooled copy diverged"
    first, last = (math.log(x) if x and x > 0 else math.nan for x in (losses[0], losses[-1]))
    if math.isnan(first) or math.isnan(last):
        return "its losses are not positive"
    if last > first + RISING:
        return f"validation rises already: {losses[0]:.4g} after {seen.forks[0].end} steps, {losses[-1]:.4g} after {seen.forks[-1].end}"
    return ""


def why_young(seen: Seen) -> str:
    """Why no law of long runs can hold yet, or nothing."""
    losses = [fork.loss or math.nan for fork in seen.forks]
    head, tail = (float(np.mean(part)) for part in (seen.losses[:3], seen.losses[-max(3, len(seen.losses) // 10) :]))
    if math.log(losses[0] / losses[-1]) > STILL and tail > 0 and math.log(head / tail) < FALLEN:
        return f"learning has only begun: the training loss went from {head:.4g} to {tail:.4g}"
    if seen.passes > WORTHLESS_PASSES:
        return f"the data are passed {seen.passes:.0f} times, and over-fitting decides when the fall ends"
    last = seen.forks[-1]
    if last.before and last.loss and math.log(last.before / last.loss) > NOISY:
        return (
            f"the rate hides where it is: cooling it down alone took the loss from {last.before:.4g} to {last.loss:.4g}"
        )
    before, now = seen.slopes()
    if now > STEEPER * before + STILL:
        return f"its loss falls faster and faster: by {before:.2g} of itself for each factor e of steps at first, by {now:.2g} now"
    return ""


def copy_rates(seen: Seen, fork: ForkSeen) -> Values:
    """The rates of a cooled copy, from the first update on."""
    rates = list(seen.rates[: fork.step])
    peak = seen.rates[fork.step]
    return np.array([*rates, *(peak * (1 - i / fork.n_cool) for i in range(fork.n_cool))])


def combined(now: float, laws: Mapping[str, float], seen: Seen) -> tuple[float, float, str]:
    """(log of the final loss, its standard deviation, the method): the laws' drops averaged; with earlier runs, both
    averaged by inverse variance where they agree."""
    drops = np.array([now - laws[name] for name in WEIGHTS])
    weights = np.array(list(WEIGHTS.values()))
    drop = float(weights @ drops)
    spread = math.sqrt(float(weights @ (drops - drop) ** 2))
    way = math.log(seen.n_steps / seen.forks[-1].end)
    sd = math.sqrt(FLOOR**2 + (DROP_SHARE * way * drop) ** 2 + spread**2)
    if seen.repeats_much:  # over-fitting may end the fall anywhere on its way: a uniform share of it
        drop, sd = drop / 2, math.hypot(sd / 2, drop / math.sqrt(12))
    mean = now - drop
    if not seen.earlier:
        return mean, sd, "forecast: laws"
    before = seen.forks[-1].before
    other, other_sd = ends.expected(seen.setting, seen.earlier, math.log(before) if before else None)
    apart = abs(mean - other) > AGREE * math.hypot(sd, other_sd)
    if apart or why_young(seen) or seen.repeats_much:
        return other, other_sd, "forecast: earlier runs"
    share = sd**2 / (sd**2 + other_sd**2)
    return (1 - share) * mean + share * other, math.sqrt(share) * other_sd, "forecast: laws and earlier runs"


def expected_at_plan(at: Setting, earlier: Sequence[Earlier]) -> list[Prediction]:
    """Before the run, from where runs of the same model on the same data ended (planning/ends.py); nothing without any."""
    if not earlier:
        return []
    mean, sd = ends.expected(at, earlier)
    why = f"{len(earlier)} earlier run{'s' * (len(earlier) > 1)} of the same model, data and length, by rate and batch"
    if sd * Z80 > TOO_WIDE:
        why = (
            f"{why}, say only that it ends between {math.exp(mean - Z80 * sd):.3g} and {math.exp(mean + Z80 * sd):.3g}"
        )
        return [unknown(name, UNIT, why, "earlier runs") for name in (FINAL_LOSS, VALIDATION_LOSS)]
    told = math.exp(mean), UNIT, why, "earlier runs"
    return [predict(name, *told, factor=math.exp(sd)) for name in (FINAL_LOSS, VALIDATION_LOSS)]


def whole_ratio(seen: Seen) -> float:
    """Loss on the whole validation split over that on what looks see of it, at the last copy; 1 where that is all of it."""
    last = seen.forks[-1]
    return last.whole / last.loss if last.whole and last.loss else 1.0


def told(seen: Seen, by: str) -> str:
    """The sentence behind a prediction."""
    copies = " and ".join(f"{fork.loss:.4g} after {fork.end} steps" for fork in seen.forks)
    runs = f", and {len(seen.earlier)} earlier runs of the same model and data" if "earlier" in by else ""
    where = (
        "the whole split, estimated from the part that looks see"
        if seen.forks[-1].whole
        else "what looks see, which is all of it"
    )
    return (
        f"cooled copies reached {copies}; their laws{runs}; validation split ({where}), weights as evaluation uses them"
    )


def evidence_of(seen: Seen, laws: Mapping[str, float]) -> dict[str, Any]:
    """What the report draws."""
    cost_s = sum(fork.seconds for fork in seen.forks)
    run_s = seen.n_steps * seen.step_s
    return {
        "forks": [{"step": f.end, "loss": f.loss, "before": f.before} for f in seen.forks],
        "laws": {name: round(math.exp(value), 6) for name, value in laws.items()},
        "earlier": [{"run": run.name, "loss": round(math.exp(run.end), 6)} for run in seen.earlier],
        "cost_s": round(cost_s, 3), "cost_share": round(cost_s / run_s, 5) if run_s else None,
    }  # fmt: skip
