"""Which of these? Arms (named sets of recipe settings) compared by paired, fully decayed short runs.

Each arm first finds its own learning rate (three rates a factor of 2 apart, more where the best is at the end, a parabola
in log rate, all on seed 0), so that arms are compared and not how well one rate fits them. Then every arm runs seeds 1, 2,
3, ...: the same order of data, the same initial weights where shapes match, the same validation blocks. The test of
planning/paired.py is looked at after every pair and ends in a winner with its effect, or in "no measurable difference".
A loser may fit its rate once more, on fresh seeds, before it has lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import NormalDist, mean, median, stdev
from typing import Any, Literal

import numpy as np

from danlu.base.errors import UserError
from danlu.planning import paired
from danlu.planning.choices import Choices
from danlu.planning.trials import Outcome, Trial

FACTOR, N_RATES, MOST_RATES = 2.0, 3, 8
"""Between neighbouring rates of a bracket; rates at first, and at most where the best one is at an end."""
APPEAL_SEEDS, MOVED = (1_000_001, 1_000_002, 1_000_003), 0.25
"""Seeds that the loser of a decided comparison fits its rate on once more; a shift in log2 of the rate that counts."""
FUTILE, FUTILE_FROM = 0.05, 4
"""A comparison ends where the chance of still deciding it is below this, looked at from so many pairs."""
Found = Literal["", "better", "worse", "no difference", "futile", "budget spent", "split too small", "diverged"]
RunArm = Callable[["Arm", Trial], Outcome]
"""Runs a trial of an arm: with its own data where its settings change them."""
Tell = Callable[[str, float, float], None]
"""Progress: what, share done, 1."""


@dataclass(frozen=True)
class Arm:
    """One of the things compared."""

    name: str
    """What the user wrote: "model.activation = gelu"."""
    settings: Mapping[str, Any]
    """Recipe settings that it changes, by dotted name."""
    choices: Choices
    """How it trains; optimizer["lr"] is where its bracket starts."""
    rate_is_given: bool = False
    """Its rate is the user's (or is what is compared): no bracket."""


@dataclass(frozen=True)
class Yardstick:
    """The one metric that all arms are judged on, fixed before the first run."""

    name: str = "loss"
    """The validation loss, or a metric that short runs report."""
    higher_is_better: bool = False

    def of(self, outcome: Outcome) -> float:
        """Its value at the end of a run; UserError where the run does not report it."""
        if self.name == "loss" or outcome.diverged:
            return outcome.loss
        reported = outcome.looks[-1].metrics
        if self.name not in reported:
            known = ", ".join(sorted(reported))
            raise UserError("--metric", f"must be one that short runs report ({known})", got=self.name)
        return reported[self.name]

    @property
    def sign(self) -> int:
        """+1 where higher is better."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class Budget:
    """What a comparison may cost."""

    amount: float
    unit: Literal["runs", "seconds"]

    def left(self, outcomes: Sequence[Outcome]) -> float:
        """What is not spent, in its unit."""
        return self.amount - (len(outcomes) if self.unit == "runs" else sum(o.seconds for o in outcomes))

    def price(self, outcomes: Sequence[Outcome]) -> float:
        """One more run like these, in its unit."""
        return 1.0 if self.unit == "runs" else median(o.seconds for o in outcomes)


@dataclass
class Standing:
    """One arm, so far."""

    arm: Arm
    rates: list[tuple[float, float]] = field(default_factory=list)
    """(rate, validation loss) of its bracket."""
    outcomes: list[Outcome] = field(default_factory=list)
    """Of seeds 1, 2, 3, ..."""
    found: Found = ""
    """How its comparison with the default ended."""
    level: float = paired.LEVEL
    """Error rate that it is tested at (Holm)."""
    has_appealed: bool = False
    """Whether its rate was fitted once more after it lost; False also where the budget did not pay for that."""


@dataclass(frozen=True)
class Comparison:
    """An arm against the default, on the yardstick. Improvements: positive is better."""

    n: int
    mean: float
    sd: float
    evaluation_se: float
    """Standard error from the validation split being a sample; 0 where the metric is not a mean over its blocks."""
    half: float
    """Half of the interval at `level`, seeds and validation split together."""
    level: float
    p: float
    smallest: float
    """Improvement that n pairs with this sd would have found with probability paired.POWER."""


def compared(default: Standing, standing: Standing, yardstick: Yardstick) -> Comparison:
    """The numbers after the pairs so far (2 at least)."""
    n = min(len(default.outcomes), len(standing.outcomes))
    pairs = list(zip(default.outcomes[:n], standing.outcomes[:n], strict=True))
    values = [[yardstick.of(o) for o in pair] for pair in pairs]
    d = [yardstick.sign * (b - a) for a, b in values]
    seen = sorted({v for pair in values for v in pair})
    grid = min((b - a for a, b in pairwise(seen)), default=0.0)
    sd = math.hypot(stdev(d), grid / math.sqrt(12))  # a metric that moves in steps: Sheppard's correction
    level = standing.level
    se = paired.evaluation_se(by_block(pairs)) if yardstick.name == "loss" else 0.0
    z = NormalDist().inv_cdf(1 - level / 2)
    half = math.hypot(paired.half_width(n, sd, level), z * se)
    return Comparison(
        n, mean(d), sd, se, half, level, p_of(n, mean(d), sd), math.hypot(sd * paired.smallest_effect(n, level), z * se)
    )


def p_of(n: int, average: float, sd: float) -> float:
    """p-value of a mean difference after n looks; 1 where all differences are 0."""
    if not sd or n < paired.FIRST:
        return 1.0
    return paired.p_value(float(paired.log_evidence(n, n * (average / sd) ** 2)))


def by_block(pairs: Sequence[tuple[Outcome, Outcome]]) -> paired.Floats:
    """(seeds, blocks) improvements of the loss, each block weighted so that a row's mean is the pair's difference; (seeds,
    0) where the arms' blocks do not hold the same targets."""
    counts = {tuple(n for _, n in o.looks[-1].blocks) for pair in pairs for o in pair}
    if len(counts) != 1:
        return np.zeros((len(pairs), 0))
    n_targets = sum(next(iter(counts)))
    n_blocks = len(next(iter(counts)))
    sums = [[[s for s, _ in o.looks[-1].blocks] for o in pair] for pair in pairs]
    return np.array([np.subtract(a, b) for a, b in sums]) * n_blocks / max(1, n_targets)


class Contest:
    """Runs a comparison: brackets, then pairs until every arm is decided or nothing more can be."""

    def __init__(self, arms: Sequence[Arm], yardstick: Yardstick, budget: Budget, run: RunArm, tell: Tell) -> None:
        self.yardstick, self.budget, self.run, self.tell = yardstick, budget, run, tell
        self.default, *self.others = (Standing(arm) for arm in arms)
        self.spent: list[Outcome] = []

    @property
    def standings(self) -> list[Standing]:
        """The default first."""
        return [self.default, *self.others]

    @property
    def open(self) -> list[Standing]:
        """Arms that are not decided."""
        return [s for s in self.others if not s.found]

    def trial(self, standing: Standing, seed: int) -> Outcome:
        """One run of an arm."""
        arm = standing.arm
        outcome = self.run(arm, Trial(arm.choices, seed=seed, settings=arm.settings))
        self.spent.append(outcome)
        share = 1 - max(0.0, self.budget.left(self.spent)) / self.budget.amount
        shown = outcome.diverged or f"{self.yardstick.name} {self.yardstick.of(outcome):.4f}"
        self.tell(f"{arm.name}, rate {arm.choices.optimizer['lr']:.3g}, seed {seed}: {shown}", share, 1)
        return outcome

    def settle(self) -> None:
        """All of it."""
        self.check_budget()
        for standing in self.standings:
            if not standing.arm.rate_is_given:
                self.bracket(standing)
                self.check_budget()
        if self.default.found:
            self.refuse_default(self.default.found)
        while self.open and self.pairs_left() >= 1:
            n = len(self.default.outcomes) + 1
            for standing in [self.default, *self.open]:
                standing.outcomes += [self.trial(standing, seed) for seed in range(len(standing.outcomes) + 1, n + 1)]
            self.judge()
        for standing in self.open:
            standing.found = "budget spent"

    def check_budget(self) -> None:
        """Refuse what cannot end in an answer, as soon as the price of a run is known."""
        least = sum(paired.FIRST + (0 if s.arm.rate_is_given else N_RATES) for s in self.standings)
        unit = self.budget.unit
        price = self.budget.price(self.spent) if self.spent or unit == "runs" else 0.0
        if least * price > self.budget.amount:
            wanted = f"must pay for {paired.FIRST} pairs and {N_RATES} learning rates of each arm: {least} runs"
            told = wanted + (f" of {price:.2g} s" if unit == "seconds" else "")
            fix = f'write "{math.ceil(least * price * (2 if unit == "seconds" else 1))} {unit}" or a shorter --length'
            raise UserError("--budget", told, got=f"{self.budget.amount:g} {unit}", fix=fix)

    def pairs_left(self) -> int:
        """Further pairs of every open arm that the budget and the test's horizon allow."""
        price = self.budget.price(self.spent) if self.spent else 0.0
        affordable = self.budget.left(self.spent) / max(1e-9, price * (1 + len(self.open)))
        return int(min(affordable, paired.HORIZON - len(self.default.outcomes)))

    def bracket(self, standing: Standing, seeds: Sequence[int] = (0,)) -> None:
        """Give an arm the rate at the lowest point of a parabola through its best rates, by the mean over seeds."""
        arm = standing.arm
        lr = float(arm.choices.optimizer["lr"])
        losses: dict[int, float] = {}
        steps = [-1, 0, 1]
        while steps:
            for step in steps:
                standing.arm = with_rate(arm, lr * FACTOR**step)
                losses[step] = mean(self.trial(standing, seed).loss for seed in seeds)
            steps = next_rates(losses)
        standing.rates = [(lr * FACTOR**step, losses[step]) for step in sorted(losses)]
        if not any(math.isfinite(loss) for loss in losses.values()):
            standing.found = "diverged"
        standing.arm = with_rate(arm, lr * FACTOR ** lowest(losses))

    def judge(self) -> None:
        """Look at every open comparison."""
        for outcome in self.default.outcomes:
            if outcome.diverged:
                self.refuse_default(outcome.diverged)
        for standing in self.open:
            if any(outcome.diverged for outcome in standing.outcomes):
                standing.found = "diverged"
        if len(self.default.outcomes) < paired.FIRST:
            return
        tested = [s for s in self.others if s.found != "diverged"]
        numbers = {s.arm.name: compared(self.default, s, self.yardstick) for s in tested}
        levels = paired.holm({name: c.p for name, c in numbers.items()})
        n_most = len(self.default.outcomes) + self.pairs_left()
        for standing in self.open:
            standing.level = levels[standing.arm.name]
            found = compared(self.default, standing, self.yardstick)
            standing.found = verdict(found, self.differences(standing), n_most)
            if standing.found in ("better", "worse"):
                self.appeal(standing)

    def appeal(self, standing: Standing) -> None:
        """A decided comparison is about the arms only if the loser's rate suits it, and one seed may have misled its
        bracket: it is fitted once more, on fresh seeds. Where that moves the rate, the loser's pairs are run anew and the
        comparison is open again, which can only make false winners rarer."""
        loser = standing if standing.found == "worse" else self.default
        n, lr = len(loser.outcomes), loser.arm.choices.optimizer["lr"]
        price = self.budget.price(self.spent) * (N_RATES * len(APPEAL_SEEDS) + n)
        if loser.arm.rate_is_given or loser.has_appealed or self.budget.left(self.spent) < price:
            return
        loser.has_appealed = True
        self.bracket(loser, APPEAL_SEEDS)
        if abs(math.log2(loser.arm.choices.optimizer["lr"] / lr)) <= MOVED:
            loser.arm = with_rate(loser.arm, lr)
            return
        loser.outcomes = [self.trial(loser, seed) for seed in range(1, n + 1)]
        for other in self.others if loser is self.default else [standing]:
            if other is standing or other.found == "better":
                other.found = ""

    def refuse_default(self, why: str) -> None:
        """Nothing can be compared with a training that diverges."""
        wanted = "must train without diverging, because the others are held against it"
        raise UserError(f"default arm {self.default.arm.name}", wanted, got=why, fix="set a lower optimizer.lr")

    def differences(self, standing: Standing) -> list[float]:
        """Improvements over the default, a seed at a time."""
        of, sign = self.yardstick.of, self.yardstick.sign
        return [sign * (of(b) - of(a)) for a, b in zip(self.default.outcomes, standing.outcomes, strict=False)]


def with_rate(arm: Arm, lr: float) -> Arm:
    """The arm at another learning rate."""
    return replace(arm, choices=arm.choices.model_copy(update={"optimizer": {**arm.choices.optimizer, "lr": lr}}))


def next_rates(losses: Mapping[int, float]) -> list[int]:
    """The rate to try next: one further out where the best is at an end; none once it is inside, or after MOST_RATES."""
    best, low, high = min(losses, key=lambda step: losses[step]), min(losses), max(losses)
    if len(losses) >= MOST_RATES:
        return []
    if best == low or not math.isfinite(losses[best]):
        return [low - 1]
    return [high + 1] if best == high else []


def lowest(losses: Mapping[int, float]) -> float:
    """Where the parabola through the best rate and its neighbours is lowest, at most half a step from the best; the best
    itself where a neighbour is missing or diverged."""
    best = min(losses, key=lambda step: losses[step])
    below, at, above = losses.get(best - 1, math.inf), losses[best], losses.get(best + 1, math.inf)
    if not math.isfinite(below + above) or below - 2 * at + above <= 0:
        return float(best)
    return best + (below - above) / (2 * (below - 2 * at + above))


def verdict(found: Comparison, differences: Sequence[float], n_most: int) -> Found:
    """Whether a comparison is decided, or cannot be any more."""
    if not any(differences):
        return "no difference"
    if found.p <= found.level:
        if abs(found.mean) > found.half:
            return "better" if found.mean > 0 else "worse"
        if abs(found.mean) <= NormalDist().inv_cdf(1 - found.level / 2) * found.evaluation_se:
            return "split too small"
    if found.n >= FUTILE_FROM and paired.still_to_come(differences, n_most, found.level) < FUTILE:
        return "futile"
    return ""
