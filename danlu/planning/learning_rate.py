"""The peak learning rate, from a law and from short, fully decayed runs at several rates, each weighed by how well it is
known; and whether measuring pays at all.

Loss as a function of the rate is close to a parabola in log rate around its minimum, and a cliff above it (Step Law's
grid, Li 2025, 2503.04715: twice the best rate costs 0.48% of the loss, half of it 0.39%, four times 2.6%, a quarter
1.1%). So what matters is log rate, and being wrong by d costs about BELOW d^2 or ABOVE d^2 (1 + BEND d^2) per cent of the
loss. A run that sees D samples in batches of B is stood for by one of D' = s D in batches of B' = B s^0.571, so that B'
is as far from the best batch for D' as B is for D (B_opt ~ D^0.571, the same paper, equation 1); but not below B / 8,
because a step of few samples takes nearly as long as one of more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from danlu.planning.choices import Choices
from danlu.planning.draft import Draft
from danlu.planning.ledger import UNTESTED, Decision
from danlu.planning.prediction import Z80
from danlu.planning.rate_shape import GRID, USUAL, WIDTHS, Located, Point, Widths, located, point
from danlu.planning.trials import RunTrial, Trial

BELOW, ABOVE, BEND = 0.81, 1.0, 0.24
"""Per cent of the loss for a squared unit of log rate; see above (0.39% / ln(2)^2 and 0.48% / ln(2)^2)."""
COMPUTE_PER_LOSS = 10.0
"""Per cent of compute that one per cent of the loss is worth: 7 to 12 on language models of 20 s (the slopes of
benchmarks/planning.md); more on large ones (planning-science: 0.2% of loss is 4 to 7% of compute)."""
RATIO, SHIFT = 3.0, 1.5
"""The first two short runs are RATIO above and below the law's rate over SHIFT: rates too low tell by how much, rates too
high hardly do."""
NEAR_EDGE, FURTHEST = 0.5, 2.2
"""A best rate nearer than this (log rate) to the outermost one tried is looked at from its other side; how far out at most."""
MOST_RUNS = 6
LEAST_STEPS, LEAST_STEPS_OF_SAMPLES = 24, 100
"""Updates of a short run that say something of a text's best rate, and of samples' (24 to 56 of theirs missed it by more than
the law did: docs/LOG.md)."""
LEAST_BATCH_TARGETS = 64
"""Samples times context of the smallest batch that a short run is made of."""
USUAL_RUNS, START_S = 2, 0.02
"""Short runs that are usually made, the fewest that are; and seconds to set one up."""
MOST_SHARE, SMALLEST, USUAL_COST = 0.03, 1 / 8, 0.006
"""Most of the run's samples that a short run sees; its smallest batch over the run's; the share of the run's time that it
takes, unless that is too short to say anything. (Runs twice as long told no more: docs/LOG.md.)"""
FIXED = 0.4
"""Of a step's time, what does not shrink with the batch: t(B') = t(B) (FIXED + (1 - FIXED) B' / B), until it is timed."""
PROXY_SD, PROXY_SD_OF_SAMPLES = 0.35, 0.75
"""How far the best rate of short runs lies from that of the whole run, sd of the log: texts (five tasks; 0.4 under Muon), and samples by
number (five of seven tasks; the other two were off by 1.8 and 2.3): docs/LOG.md, what tells the best rate."""
WORTH_TELLING = 2.0
"""Per cent of the loss from which a given rate's expected cost is told."""
TAILS = 4.0
"""Degrees of freedom of the law's error: it is usually good, and now and then far off."""


@dataclass(frozen=True)
class Belief:
    """What is thought of the best log rate: a density over GRID."""

    density: NDArray[np.float64]

    @classmethod
    def of_law(cls, rate: float, sd: float) -> Belief:
        """A law's answer with an error of Student's t."""
        z = (GRID - math.log(rate)) / sd
        return cls(normal(-(TAILS + 1) / 2 * np.log1p(z**2 / TAILS)))

    def seen(self, log_rate: float, sd: float) -> Belief:
        """After a measurement with a normal error."""
        return Belief(normal(np.log(self.density + 1e-300) - 0.5 * ((GRID - log_rate) / sd) ** 2))

    @property
    def mean(self) -> float:
        """Of the log rate."""
        return float(GRID @ self.density)

    @property
    def sd(self) -> float:
        """Of the log rate."""
        return math.sqrt(max(0.0, float((GRID - self.mean) ** 2 @ self.density)))

    def quantile(self, share: float) -> float:
        """The rate below which the best one lies with this probability."""
        return float(math.exp(np.interp(share, np.cumsum(self.density), GRID)))

    def cost(self, log_rate: float) -> float:
        """Expected loss of choosing a rate, in per cent of the loss above the best."""
        d = np.clip(log_rate - GRID, -2, 2)
        return float(np.where(d < 0, BELOW * d**2, ABOVE * d**2 * (1 + BEND * d**2)) @ self.density)

    def best(self) -> tuple[float, float]:
        """(the rate of least expected cost, that cost)."""
        around = np.linspace(self.mean - 2 * self.sd, self.mean + self.sd, 61)
        costs = [self.cost(float(x)) for x in around]
        return math.exp(around[int(np.argmin(costs))]), min(costs)


def normal(log_density: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential of it, summing to 1."""
    found = np.exp(log_density - log_density.max())
    return np.asarray(found / found.sum())


@dataclass(frozen=True)
class Probe:
    """How the short runs stand for the whole one."""

    share: float
    """Of the whole run's samples."""
    batch: int
    n_steps: int


def probe(choices: Choices, context: int, share: float) -> Probe | None:
    """Short runs of `share` of the samples; None where they would be too short to say anything."""
    least = max(SMALLEST * choices.batch, min(choices.batch, LEAST_BATCH_TARGETS / context))
    fewest = LEAST_STEPS if context > 1 else LEAST_STEPS_OF_SAMPLES
    batch = max(1, round(max(least, choices.batch * share**0.571)))
    n_steps = int(share * choices.n_steps * choices.batch / batch)
    return Probe(share, batch, n_steps) if n_steps >= fewest else None


def cost(choices: Choices, asked: Probe) -> float:
    """Of one short run, as a share of the whole one's time."""
    step = FIXED + (1 - FIXED) * asked.batch / choices.batch
    return asked.n_steps * step / choices.n_steps


def affordable(choices: Choices, context: int, most: float) -> Probe | None:
    """Short runs that cost USUAL_COST of the whole run, or as little above it as says something; None where that is more
    than `most`."""
    fits = [p for share in np.geomspace(MOST_SHARE, 1e-4, 60) if (p := probe(choices, context, float(share)))]
    found = next((p for p in fits if cost(choices, p) <= min(most, USUAL_COST)), fits[-1] if fits else None)
    return found if found is not None and cost(choices, found) <= most else None


@dataclass
class Measurement:
    """Short runs at several rates, started at the law's and spread until the best lies well between two others."""

    run_trial: RunTrial
    choices: Choices
    probe: Probe
    seed: int
    proxy_sd: float = PROXY_SD
    """How far off their best rate may be."""
    widths: Widths = USUAL
    """Of the optimizer's shape."""
    points: list[Point] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, rate: float) -> None:
        """One more rate."""
        p, optimizer = self.probe, {**self.choices.optimizer, "lr": rate}
        micro_batch = min(self.choices.micro_batch, p.batch)
        how = {"batch": p.batch, "micro_batch": micro_batch, "n_steps": p.n_steps, "optimizer": optimizer, "ema": None}
        outcome = self.run_trial(Trial(self.choices.model_copy(update=how), self.seed, is_scored=False))
        self.points.append(point(rate, outcome))
        self.seconds += outcome.seconds

    def spread(self, center: float, allowed_s: float) -> None:
        """One on each side of the center, then where the best is thought to be, while time is left for another."""
        for rate in (center * RATIO / SHIFT, center / RATIO / SHIFT):
            if self.has_time(allowed_s):
                self.run(rate)
        while len(self.points) < MOST_RUNS and self.has_time(allowed_s) and (further := self.beyond()) is not None:
            self.run(further)

    def has_time(self, allowed_s: float) -> bool:
        """Whether another run, as long as those so far on average, still fits."""
        done = len(self.points)
        return self.seconds * (done + 1) / max(1, done) <= allowed_s

    def beyond(self) -> float | None:
        """The next rate, where the best lies near the outermost one so far or beyond it; None when it lies between."""
        rates = sorted(p.rate for p in self.points)
        lowest, highest, found = math.log(rates[0]), math.log(rates[-1]), located(self.points, self.widths)
        if found is None:
            return rates[0] / RATIO**2
        if found.center > highest - NEAR_EDGE:
            return math.exp(min(highest + FURTHEST, max(highest + NEAR_EDGE, found.center)))
        if found.center < lowest + NEAR_EDGE:
            return math.exp(max(lowest - FURTHEST, min(lowest - NEAR_EDGE, found.center)))
        return None


def pays(law: Belief, share: float, proxy_sd: float = PROXY_SD) -> bool:
    """Whether short runs that cost `share` of the run are worth it: what they are expected to save of the loss, as compute,
    against their cost. The saving is that of a belief as sharp as law and measurement together."""
    saved = law.best()[1] - law.seen(law.mean, proxy_sd).best()[1]
    return saved * COMPUTE_PER_LOSS / 100 > share


def settle(law: Decision, draft: Draft, choices: Choices, step_s: float, run_trial: RunTrial) -> Decision:
    """optimizer.lr: measured where plan.budget allows it and it pays, else the law's answer with the reason. `choices` has all
    but the rate."""
    run_s, before = choices.n_steps * step_s, Belief.of_law(law.value, sd_of(law))
    if draft.recipe.plan.budget.unit == "prior":
        return unmeasured(law, 'plan.budget is "prior"')
    allowed_s, proxy_sd = draft.left_s(run_s), PROXY_SD if draft.context > 1 else PROXY_SD_OF_SAMPLES
    asked = affordable(choices, draft.context, (allowed_s / USUAL_RUNS - START_S) / run_s)
    if asked is None:
        left = f"{max(0.0, allowed_s):.2g} s of plan.budget are left"
        return unmeasured(law, f"{left}, too little for {USUAL_RUNS} short runs that say something")
    if not pays(before, USUAL_RUNS * cost(choices, asked), proxy_sd):
        return unmeasured(
            law, "the law is known well enough that short runs would cost more than they are expected to save"
        )
    widths = WIDTHS.get(getattr(draft.recipe.optimizer, "kind", ""), USUAL)
    measured = Measurement(run_trial, choices, asked, draft.seed, proxy_sd, widths)
    measured.spread(law.value, allowed_s)
    if len(measured.points) < USUAL_RUNS:
        return unmeasured(law, f"only {len(measured.points)} short runs could be made within plan.budget")
    return decided(law, before, measured)


def dear(rate: float, law: Decision) -> Decision | None:
    """What a given rate is expected to cost by the law, to be told beside it; None where that is not worth a word, or where the
    law is a house rule that nobody tested."""
    belief = Belief.of_law(law.value, sd_of(law))
    lost = belief.cost(math.log(rate)) - belief.best()[1]
    if lost < WORTH_TELLING or law.valid == UNTESTED:
        return None
    least = "at least " if abs(math.log(rate / law.value)) > FURTHEST else ""
    name = law.origin.removeprefix("prior: ")
    why = f"kept, but by {name} the best is {law.value:.3g}, and this would cost {least}about {lost:.1f}% of the loss"
    return replace(law, value=rate, origin="given", why=f"{why}.")


def unmeasured(law: Decision, reason: str) -> Decision:
    """The law's answer, and why it stands."""
    return replace(law, why=f"{law.why} Not measured: {reason}.")


def sd_of(law: Decision) -> float:
    """Of the log rate: a law's low and high are read as an 80% interval."""
    low, high = law.low or law.value / 4, law.high or law.value * 4
    return math.log(high / low) / (2 * Z80)


def decided(law: Decision, before: Belief, measured: Measurement) -> Decision:
    """optimizer.lr after the short runs."""
    found, p = located(measured.points, measured.widths), measured.probe
    after = before
    if found is not None:
        after = before.seen(found.center, math.hypot(found.sd, measured.proxy_sd))
    rate, cost = after.best()
    rate = float(f"{rate:.3g}")
    said = f"{len(measured.points)} short runs of {p.n_steps} steps in batches of {p.batch}"
    seen = f"place the best rate at {math.exp(found.center):.2g}" if found else "all diverged"
    why = f"The law gives {law.value:g}; {said} {seen}; weighed by how well each is known: {rate:g}."
    return Decision(
        law.name, rate, "measured: short runs", why, f"{law.source}; docs/LOG.md, what tells the best rate", law.valid, found is not None,
        after.quantile(0.1), after.quantile(0.9), if_wrong=f"about {cost:.1g}% of the loss expected, by this uncertainty",
        evidence=evidence(measured, found, rate),
        alternatives=tuple({"value": q.rate, "why": told(q)} for q in sorted(measured.points, key=lambda q: q.rate)),
    )  # fmt: skip


def told(p: Point) -> str:
    """What a short run came to."""
    return f"ended at {p.loss:.4g}" if math.isfinite(p.loss) else "diverged"


def evidence(measured: Measurement, found: Located | None, chosen: float) -> dict[str, object]:
    """For the report to draw."""
    shown = sorted((p for p in measured.points if math.isfinite(p.loss)), key=lambda p: p.rate)
    drawn: dict[str, object] = {
        "plot": "points", "x": "learning rate", "y": "training loss at the end of a short run", "log_x": True,
        "points": [[p.rate, p.loss, p.error] for p in shown], "chosen": chosen,
    }  # fmt: skip
    if found is not None:
        xs = np.linspace(math.log(shown[0].rate), math.log(shown[-1].rate), 31)
        drawn["curve"] = [[math.exp(x), found.loss(float(x))] for x in xs]
    return drawn
