"""From the best rate of a small or short run to that of the whole one, with how sure it is. Torch-free.

    transfer(Known(0.01, 0.2), Run(64, 2, 4096, 500), Run(512, 2, 4096, 500), "muon", "mup")

Each way in which the two runs differ multiplies the rate by a factor and adds to the variance of its log. In width and depth
the factor is size^exponent, for each parametrization and optimizer (benchmarks/rate_transfer.md): 0 is what muP (Yang & Hu
2021, 2203.03466) and CompleteP (Dey 2025, 2505.01618) promise, so there no change is made, and what was seen instead over 8x
in width and 4x in depth is the uncertainty; for the standard parametrization the measured exponent. Length and batch are told by one law on
models of the size that laws were fitted on, and by exponents measured here (benchmarks/rate_horizon.md) on small ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from danlu.base.errors import UserError
from danlu.planning.learning_rate import Belief, sd_of
from danlu.planning.ledger import Decision

SMALL = 4.6e7
"""Parameters without embeddings and head below which the laws of large models were not checked (priors.STEP_N)."""


@dataclass(frozen=True)
class Run:
    """What the best rate of a run hangs on."""

    width: int
    n_layers: int
    batch: float
    """Tokens of one update (samples, where samples have no length)."""
    n_steps: float
    """Updates; the rate is fully decayed at their end."""
    n_hidden: float = 0.0
    """Parameters without embeddings and head; 0 where they are few."""

    @property
    def batch_ratio(self) -> float:
        """x: the batch over the best one for so many tokens D, 0.58 D^0.571 (Li 2025, 2503.04715, equation 1)."""
        return self.batch / (0.58 * math.pow(self.batch * self.n_steps, 0.571))


@dataclass(frozen=True)
class Known:
    """A rate, and the standard deviation of its log."""

    rate: float
    sd: float


@dataclass(frozen=True)
class Step:
    """One way in which the runs differ."""

    name: str
    factor: float
    """On the rate."""
    sd: float
    """Of the factor's log."""
    source: str
    in_range: bool
    """Whether it was measured for this optimizer and parametrization, over such a distance."""


@dataclass(frozen=True)
class Transferred:
    """The target's rate."""

    best: Known
    steps: tuple[Step, ...]

    @property
    def in_range(self) -> bool:
        """Whether every step was."""
        return all(step.in_range for step in self.steps)

    @property
    def why(self) -> str:
        """One clause a step."""
        told = [f"{s.name} x{s.factor:.3g} (within a factor of {math.exp(s.sd):.2g}; {s.source})" for s in self.steps]
        return "; ".join(told) if told else "the runs are alike"


@dataclass(frozen=True)
class Power:
    """rate ~ size^exponent."""

    exponent: float
    sd: float
    """Of the exponent, from model to model."""
    reach: float
    """Largest ratio of sizes over which it was measured."""


def transfer(best: Known, proxy: Run, target: Run, optimizer: str, parametrization: str) -> Transferred:
    """The target's best rate from the proxy's."""
    for name, run in (("proxy", proxy), ("target", target)):
        if min(run.width, run.n_layers, run.batch, run.n_steps) <= 0:
            raise UserError(f"transfer's {name}", "must have a positive width, depth, batch and length", got=str(run))
    steps = [
        along("width", target.width / proxy.width, WIDTH.get((optimizer, parametrization))),
        along("depth", target.n_layers / proxy.n_layers, DEPTH.get((optimizer, parametrization))),
        *(small_lengths if max(proxy.n_hidden, target.n_hidden) < SMALL else large_lengths)(proxy, target, optimizer),
    ]
    kept = tuple(step for step in steps if step is not None)
    rate = best.rate * math.prod(step.factor for step in kept)
    return Transferred(Known(rate, math.hypot(best.sd, *(step.sd for step in kept))), kept)


def carried(law: Decision, where: str, best: Known, found: Transferred, holds_law: bool) -> Decision:
    """optimizer.lr from the rate of the run in the folder `where`, transferred. It and the law's are weighed by how well each is
    known, unless the law is in it already (`holds_law`: it was planned from a law and a measurement)."""
    rate, sd = found.best.rate, found.best.sd
    belief = Belief.of_law(rate, sd) if holds_law else Belief.of_law(law.value, sd_of(law)).seen(math.log(rate), sd)
    chosen, cost = belief.best()
    chosen = float(f"{chosen:.3g}")
    weighed = "the law is in it" if holds_law else f"weighed with the law's {law.value:g}"
    why = (
        f"{where} ran at {best.rate:.3g} (within a factor of {math.exp(best.sd):.2g}), which comes to {rate:.3g} here (within "
        f"{math.exp(sd):.2g}): {found.why}; {weighed}, and taken a little lower because too high costs more: {chosen:g}."
    )
    return Decision(
        law.name, chosen, "transferred", why, f"{law.source}; benchmarks/rate_transfer.md, benchmarks/rate_horizon.md", law.valid,
        found.in_range, belief.quantile(0.1), belief.quantile(0.9),
        if_wrong=f"about {cost:.1g}% of the loss expected, by this uncertainty",
        alternatives=({"value": law.value, "why": "the law's alone"}, {"value": float(f"{rate:.3g}"), "why": "the run's alone"}),
    )  # fmt: skip


def along(name: str, ratio: float, power: Power | None, source: str = "benchmarks/rate_transfer.md") -> Step | None:
    """The step of one size; None where it does not change. Without a measurement: half way between no change and UNKNOWN's."""
    if ratio == 1:
        return None
    used = power or UNKNOWN
    distance = abs(math.log(ratio))
    in_range = power is not None and distance <= math.log(power.reach) + 1e-9
    told = source if power else "not measured for this optimizer and parametrization"
    return Step(name, ratio**used.exponent, used.sd * distance, told, in_range)


def small_lengths(proxy: Run, target: Run, optimizer: str) -> list[Step | None]:
    """Length at a fixed batch, then the batch at a fixed number of tokens."""
    tokens = target.batch * target.n_steps / (proxy.batch * proxy.n_steps)
    is_adam = optimizer in ("adam", "adamw")
    return [
        along("length", tokens, HORIZON if is_adam else None, "benchmarks/rate_horizon.md"),
        along(
            "batch",
            target.batch / proxy.batch,
            BATCHES.get(optimizer, BATCH_RULE),
            "benchmarks/rate_horizon.md, optimizers.md",
        ),
    ]


def large_lengths(proxy: Run, target: Run, optimizer: str) -> list[Step | None]:
    """Length and batch together: rate ~ (1 + 0.16 / x)^-1.75 with x the batch over the best one for so many tokens, refitted on
    Step Law's 1,911 runs (Li 2025, 2503.04715). At a fixed batch that is D^-0.32 (Bjorck 2024, 2409.19913) where x is near a
    third; in the batch it is the root rule (Malladi 2022, 2205.10287) where x is near 0.4."""
    old, new = proxy.batch_ratio, target.batch_ratio
    batches = target.batch / proxy.batch
    distance = math.hypot(math.log(batches), math.log(batches * target.n_steps / proxy.n_steps))
    if distance == 0:
        return []
    factor = ((1 + 0.16 / new) / (1 + 0.16 / old)) ** -1.75
    known = optimizer in ("adam", "adamw") and max(old, new) <= 8 and min(old, new) >= 1 / 8
    source = "Li 2025, 2503.04715, refitted: residual a factor of 1.28"
    return [Step("length and batch", factor, LAW_SD * min(1.0, distance / math.log(4)), source, known)]


LAW_SD = math.log(1.4)
"""Of the law's log between runs four times apart: held-out larger cells of Step Law's grid missed by a factor of 1.40."""
WIDTH = {
    ("adamw", "mup"): Power(0.0, 0.24, 8.0), ("adamw", "completep"): Power(0.0, 0.24, 8.0),
    ("muon", "mup"): Power(0.0, 0.1, 8.0), ("muon", "completep"): Power(0.0, 0.1, 8.0),
    ("adamw", "standard"): Power(-1.16, 0.3, 8.0), ("muon", "standard"): Power(-0.61, 0.15, 8.0),
}  # fmt: skip
"""Widths 32 to 256 of a byte model. Seen: AdamW x1.65 up (3 seeds), Muon x1.17 up (2), AdamW standard x0.09
(2), which in parameters is -0.58: Step Law's -0.6 (planning-science, section 1); Muon standard x0.28 (2)."""
DEPTH = {
    ("adamw", "completep"): Power(0.0, 0.43, 4.0),
    ("adamw", "standard"): Power(0.0, 0.22, 4.0), ("adamw", "mup"): Power(0.0, 0.22, 4.0),
    ("muon", "completep"): Power(0.0, 0.1, 4.0), ("muon", "standard"): Power(-0.17, 0.1, 4.0),
    ("muon", "mup"): Power(-0.17, 0.1, 4.0),
}  # fmt: skip
"""2 to 8 layers of width 64. Seen: AdamW (one seed) x1.81 up under CompleteP, x1.35 up without (branches start at zero); Muon (two
seeds) x1.14 up under CompleteP, x0.79 without."""
HORIZON = Power(-0.24, 0.12, 16.0)
"""Of the tokens at a fixed batch: 1/16, 1/4 and all of six tasks' samples, one seed (benchmarks/rate_horizon.md); Bjorck 2024,
2409.19913: -0.32 on large models."""
BATCH = Power(0.58, 0.31, 4.0)
"""Of the batch at a fixed number of tokens: two to four batches of twelve tasks, one seed (benchmarks/rate_horizon.md)."""
BATCHES = {"adam": BATCH, "adamw": BATCH, "muon": Power(0.6, 0.31, 8.0), "sgd": Power(1.0, 0.5, 1.0)}
"""Muon's: five language models in updates of 512 to 4,096 tokens (benchmarks/optimizers.md); as uncertain as AdamW's."""
BATCH_RULE = Power(0.5, 0.5, 1.0)
"""Of other optimizers: the root (Malladi 2022, 2205.10287), not measured here; 1 under SGD (Goyal 2017, 1706.02677)."""
UNKNOWN = Power(-0.5, 0.5, 1.0)
"""Half way between no change and in proportion, either being as far off as its standard deviation."""
