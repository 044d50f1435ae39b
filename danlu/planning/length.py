"""Where a run's loss will end, said while it is young, and which lengths are worth it. Torch-free.

    forecast(seen) -> Forecast                        at plan.forecast of the run, from its curve and its cooled copies
    forecast_at_plan(proxies, n_units) -> Prediction  before it, from short runs that were trained to their end

What is predicted is the drop of the log loss from the last cooled copy to the run's end: the laws of planning/ensemble.py,
averaged, and, where the same model was trained on the same data before, where those runs ended. How far the laws miss was
measured on logged runs (benchmarks/forecast.md); where they may miss by more than TOO_WIDE, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from danlu.planning import curves, ensemble
from danlu.planning.curves import Prior, Values
from danlu.planning.ensemble import Points
from danlu.planning.prediction import FINAL_LOSS, VALIDATION_LOSS, Z80, Prediction, predict, unknown

UNIT = "per target"
WEIGHTS = {"annealing": 0.25, "noise": 0.25, "family": 0.25, "bent": 0.25}
"""Of the laws' drops."""
DROP_SHARE, FLOOR = 0.5, 0.01
"""One standard deviation of the final log loss: this share of the drop still to come, and never less than the floor."""
EARLIER_SD = 0.015
"""The same where earlier runs say where it ends."""
EARLIER_SPREAD = 0.05
"""Spread of the leads among earlier runs, in log loss, at which half of the lead that their ends say lasts is believed."""
ALIKE = 0.3
"""An earlier run counts when its log loss at the same share of its length is no further from this one's."""
TOO_WIDE = 0.20
"""Half-width of the 80% interval, in log loss, beyond which the answer is "don't know"."""
RISING = 0.01
"""Rise of the cooled loss, in logs, that counts as over-fitting."""
FALLEN, STILL = 0.30, 0.02
"""A training loss that fell by less than FALLEN since its first steps, in logs, while the cooled loss moves by more than
STILL between the copies, has its fall before it. (A language model falls by so much on the frequencies of its tokens.)"""
STEEPER = 1.2
"""A slope of the log loss over the log step that grew by this factor from the first to the second half of what was seen is
no law's: all of them flatten."""
MANY_PASSES = 4.0
"""Over the data; beyond, the last look may be worse than the best one (Muennighoff 2023: up to 4 passes are as good as new)."""
ONE_PERCENT, SMALL_GAIN = 0.01, 0.0025
"""Drops of the log loss by a doubling of the length, below which it is no longer recommended, and no longer of use."""
LONGEST = 4.0
"""Lengths are looked at up to so many times the run's."""


@dataclass(frozen=True)
class ForkSeen:
    """A copy of the run that was cooled down and looked at."""

    step: int
    """Completed updates of the run itself."""
    n_cool: int
    """Updates of the cool-down."""
    loss: float | None
    """On what the run's looks see of the validation split; None where a loss was not finite."""
    sd: float
    """Its standard error over the split's pieces."""
    seconds: float
    """What it took."""
    before: float | None = None
    """The same look before the cool-down, where there was one."""
    whole: float | None = None
    """The loss on the whole split, where the run's looks see a part of it."""

    @property
    def end(self) -> int:
        """Updates of a run that ends so."""
        return self.step + self.n_cool


@dataclass(frozen=True)
class Earlier:
    """A finished run of the same model on the same data."""

    name: str
    now: float
    """Log of its loss at the share of its length at which the forecast is made."""
    end: float
    """Log of its best loss."""

    @classmethod
    def of(cls, name: str, looks: Sequence[tuple[int, float]], n_steps: int, share: float) -> Earlier | None:
        """From a finished run's looks (step, loss); its loss at a share of its length is interpolated in log-log. None
        where it did not look early enough, or a loss is not positive."""
        good = [(step / n_steps, math.log(loss)) for step, loss in looks if loss > 0]
        if not good or not good[0][0] <= share < good[-1][0]:
            return None
        at, logs = (np.array(part) for part in zip(*good, strict=True))
        return cls(name, float(np.interp(math.log(share), np.log(at), logs)), float(logs.min()))


@dataclass(frozen=True)
class Seen:
    """What a run has shown so far."""

    rates: Sequence[float]
    """Of every update of the whole run, as a share of the peak."""
    losses: Sequence[float]
    """Training loss of each update so far."""
    forks: Sequence[ForkSeen]
    units_per_step: int
    """Tokens or samples of an update."""
    n_unique: int
    """Tokens or samples of the training split."""
    step_s: float = 0.0
    """Seconds of an update."""
    earlier: Sequence[Earlier] = ()

    @property
    def n_steps(self) -> int:
        """Of the whole run."""
        return len(self.rates)

    @property
    def passes(self) -> float:
        """Over the data, by the end."""
        return self.n_steps * self.units_per_step / self.n_unique

    def points(self) -> Points:
        """As the laws take them."""
        losses, rates = np.asarray(self.losses, float), np.asarray(self.rates, float)
        steps, hot, hot_sd = ensemble.stretches(losses, rates)
        last = self.forks[-1]
        gain = math.log(last.before / last.loss) if last.before and last.loss else 0.0
        ends = np.array([float(fork.end) for fork in self.forks])
        cooled = np.array([fork.loss for fork in self.forks], float)
        return Points(ends, cooled, steps, hot, hot_sd, max(0.0, gain), self.n_unique / self.units_per_step)

    def slopes(self) -> tuple[float, float]:
        """Fall of the log training loss per log step, in the first and the second half of its stretches."""
        steps, hot, _ = ensemble.stretches(np.asarray(self.losses, float), np.asarray(self.rates, float))
        middle = len(steps) // 2
        if middle < 2:
            return 0.0, 0.0
        x, y = np.log(steps), np.log(hot)
        first, second = (
            -float(np.polyfit(x[part], y[part], 1)[0]) for part in (slice(0, middle + 1), slice(middle, None))
        )
        return first, second


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
    if sd * Z80 > TOO_WIDE:
        ends = f"{math.exp(mean - Z80 * sd):.3g} and {math.exp(mean + Z80 * sd):.3g}"
        return untold(step, f"the run is too young: its loss falls so fast that it may end between {ends}", evidence)
    found = predict(FINAL_LOSS, whole_ratio(seen) * math.exp(mean), UNIT, told(seen, by), by, factor=math.exp(sd))
    last = predict(VALIDATION_LOSS, math.exp(mean), UNIT, told(seen, by), by, factor=math.exp(sd))
    if seen.passes > MANY_PASSES:
        why = f"{seen.passes:.0f} passes over the data: the last look may be worse than the best one"
        last = unknown(VALIDATION_LOSS, UNIT, why, by)
    lengths = Lengths(seen, points, mean)
    worth = lengths.points()
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
    before, now = seen.slopes()
    if now > STEEPER * before + STILL:
        return f"its loss falls faster and faster: by {before:.2g} of itself for each factor e of steps at first, by {now:.2g} now"
    return ""


def copy_rates(seen: Seen, fork: ForkSeen) -> Values:
    """The rates of a cooled copy, from the first update on."""
    rates = list(seen.rates[: fork.step])
    peak = seen.rates[fork.step]
    return np.array([*rates, *(peak * (1 - i / fork.n_cool) for i in range(fork.n_cool))])


def combined(now: float, laws: dict[str, float], seen: Seen) -> tuple[float, float, str]:
    """(log of the final loss, its standard deviation, the method): the laws' drops averaged; with earlier runs, both
    averaged by inverse variance."""
    drops = np.array([now - laws[name] for name in WEIGHTS])
    weights = np.array(list(WEIGHTS.values()))
    drop = float(weights @ drops)
    spread = math.sqrt(float(weights @ (drops - drop) ** 2))
    sd = math.sqrt(FLOOR**2 + (DROP_SHARE * drop) ** 2 + spread**2)
    if seen.passes > MANY_PASSES:  # over-fitting may end the fall anywhere on its way: a uniform share of it
        drop, sd = drop / 2, math.hypot(sd / 2, drop / math.sqrt(12))
    mean = now - drop
    if not seen.earlier:
        return mean, sd, "forecast: laws"
    other, other_sd = from_earlier(math.log(seen.forks[-1].before or math.nan), seen.earlier)
    if why_young(seen) or seen.passes > MANY_PASSES:
        return other, other_sd, "forecast: earlier runs"
    share = sd**2 / (sd**2 + other_sd**2)
    return (1 - share) * mean + share * other, math.sqrt(share) * other_sd, "forecast: laws and earlier runs"


def from_earlier(now: float, earlier: Sequence[Earlier]) -> tuple[float, float]:
    """(log of the final loss, its standard deviation) from where runs of the same model on the same data ended: their mean,
    moved by what of this run's lead over them lasts, a slope between 0 and 1 that is fitted and shrunk (ridge regression:
    Hoerl & Kennard 1970)."""
    x, y = np.array([run.now for run in earlier]), np.array([run.end for run in earlier])
    dx, dy = x - x.mean(), y - y.mean()
    slope = min(1.0, max(0.0, float(dx @ dy) / (float(dx @ dx) + EARLIER_SPREAD**2)))
    lead = now - float(x.mean())
    rest = dy - slope * dx
    scatter = math.sqrt(float(rest @ rest) / max(1, len(rest) - 1)) if len(rest) > 1 else EARLIER_SD
    return float(y.mean()) + slope * lead, math.hypot(max(scatter, EARLIER_SD), 0.5 * lead)


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


def evidence_of(seen: Seen, laws: dict[str, float]) -> dict[str, Any]:
    """What the report draws."""
    cost_s = sum(fork.seconds for fork in seen.forks)
    run_s = seen.n_steps * seen.step_s
    return {
        "forks": [{"step": f.end, "loss": f.loss, "before": f.before} for f in seen.forks],
        "laws": {name: round(math.exp(value), 6) for name, value in laws.items()},
        "earlier": [{"run": run.name, "loss": round(math.exp(run.end), 6)} for run in seen.earlier],
        "cost_s": round(cost_s, 3), "cost_share": round(cost_s / run_s, 5) if run_s else None,
    }  # fmt: skip


@dataclass(frozen=True)
class Lengths:
    """The loss of cooled runs of other lengths: the shape of the family and the bent law, through the forecast."""

    seen: Seen
    observed: Points
    end: float
    """Log of the final loss that was predicted."""

    def logs(self, steps: Values) -> Values:
        """Log loss of cooled runs of so many steps, from the last copy on."""
        x = self.observed.relative(np.append(steps, self.seen.n_steps))
        now = math.log(self.observed.cooled[-1])
        drops = now - (ensemble.family(self.observed, x) + ensemble.bent(self.observed, x)) / 2
        return np.asarray(
            now - drops[:-1] * (now - self.end) / drops[-1] if drops[-1] > 1e-9 else np.full(len(steps), now)
        )

    def curve(self) -> list[tuple[int, float]]:
        """(step, loss) of 40 looks to come: what a cooled run would have there, higher by what the rate of that step
        costs (the gain of the last copy, in proportion to the rate: Qiu 2025)."""
        n_steps, last = self.seen.n_steps, self.seen.forks[-1].end
        steps = np.unique(np.linspace(last, n_steps, 41).astype(int)[1:])
        hot = np.array([self.seen.rates[s - 1] for s in steps])
        logs = self.logs(steps.astype(float)) + max(self.observed.gain, ensemble.USUAL_GAIN) * hot
        return [(int(s), round(math.exp(y), 6)) for s, y in zip(steps, logs, strict=True)]

    def points(self) -> dict[str, Any]:
        """Cheapest within 1% of the run's end; recommended, beyond which a doubling gains less than 1%; diminishing
        returns, beyond which it gains less than a quarter of that. Those beyond LONGEST times the run are left out."""
        n_steps, first = self.seen.n_steps, self.seen.forks[-1].end
        steps = np.unique(np.geomspace(first, LONGEST * n_steps, 200).astype(int)).astype(float)
        logs, doubled = self.logs(steps), self.logs(2 * steps)
        wanted = {
            "cheapest within 1%": logs <= self.end + ONE_PERCENT,
            "recommended": logs - doubled < ONE_PERCENT,
            "diminishing returns": logs - doubled < SMALL_GAIN,
        }
        return {
            name: self.point(name, steps[at], logs[at])
            for name, there in wanted.items()
            if (at := first_true(there)) >= 0
        }

    def point(self, name: str, steps: float, log: float) -> dict[str, Any]:
        """One length, in every unit."""
        n = int(steps)
        share = n / self.seen.n_steps
        said = f"{name}: {n:,} steps, {share:.2g} times this run" if not 0.95 < share < 1.05 else f"{name}: this length"
        return {
            "steps": n, "units": n * self.seen.units_per_step, "seconds": round(n * self.seen.step_s, 1),
            "loss": round(math.exp(log), 6), "said": said,
        }  # fmt: skip


def first_true(there: Values) -> int:
    """Index of the first one that is true and stays so; -1 without any."""
    wrong = np.flatnonzero(~np.asarray(there, bool))
    start = int(wrong[-1]) + 1 if len(wrong) else 0
    return start if start < len(there) else -1


def forecast_at_plan(proxies: Sequence[tuple[float, float]], n_units: float) -> Prediction:
    """Before the run: from short runs that were trained to their end, (tokens or samples, final loss), by L = E + B D^-b
    (Hoffmann 2022, 2203.15556), with the doubt of a drop this long."""
    found = sorted((d, loss) for d, loss in proxies if math.isfinite(loss) and loss > 0)
    if len({d for d, _ in found}) < 2:
        return unknown(FINAL_LOSS, UNIT, "no short runs of two lengths were trained to their end", "forecast: proxies")
    lengths, losses = (np.array(part) for part in zip(*found, strict=True))
    scale = float(losses[-1])
    prior = Prior(
        ensemble.EXPONENTS, [1.0] * len(ensemble.EXPONENTS), np.full(2, 0.5 * scale), np.full(2, scale), (True, True)
    )
    x = (lengths / lengths[-1])[:, None]
    law = curves.fitted(curves.power_design, x, losses, ensemble.LAW_SD * losses, prior)
    mean, spread = (float(v[0]) for v in law.at(np.array([[n_units / float(lengths[-1])]])))
    drop = math.log(scale / max(mean, 0.01 * scale))
    sd = math.sqrt(FLOOR**2 + (DROP_SHARE * drop) ** 2 + (spread / max(mean, 0.01 * scale)) ** 2)
    if sd * Z80 > 2 * TOO_WIDE:
        why = (
            f"short runs of {len(found)} lengths say too little of one {n_units / float(lengths[-1]):.0f} times as long"
        )
        return unknown(FINAL_LOSS, UNIT, why, "forecast: proxies")
    why = f"E + B D^-b through {len(found)} short runs, the longest {float(lengths[-1]) / n_units:.1%} of this one"
    return predict(FINAL_LOSS, max(mean, 0.01 * scale), UNIT, why, "forecast: proxies", factor=math.exp(sd))
