"""What a run is expected to come to, with intervals, or the plain statement that nobody knows.

    predict("step_s", 0.021, "s", "median of 12 timed steps", "timing", factor=1.05)
    unknown("validation_loss", "nats per target", "nothing was measured that says where the loss will end", "laws")

A prediction is written before the run and held against the outcome after it (planning/scorecard.py). `factor` and `sd`
are one standard deviation of the error, on a logarithmic and on a linear scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

Z80, Z95 = 1.2816, 1.9600
"""Half-widths of the central 80% and 95% of a normal error, in standard deviations: its 90% and 97.5% quantiles."""
VALIDATION_LOSS, TRAIN_S, STEP_S, PEAK_BYTES, N_STEPS = "validation_loss", "train_s", "step_s", "peak_bytes", "n_steps"
FINAL_LOSS = "final_loss"
"""Predictions that a finished run can be held against: the last look at the validation split, and the loss of the checkpoint
that evaluation loads on all of it; seconds of the whole
training (start-up, steps, looks, checkpoints); median seconds of a step without looks and checkpoints; peak memory of the
training process (of the GPU where there is one); updates."""


@dataclass(frozen=True)
class Prediction:
    """One number that the run will be held against. Without a value: "don't know", and `why` says what is missing."""

    name: str
    """What is predicted: one of the names above, or another, which is shown but not scored."""
    value: float | None
    """The expected value (the median), or None."""
    unit: str
    """Unit of the value and its bounds: s, bytes, nats per target."""
    low80: float | None
    """The outcome is to lie between low80 ..."""
    high80: float | None
    """... and high80 in 80 of 100 runs,"""
    low95: float | None
    """and between low95 ..."""
    high95: float | None
    """... and high95 in 95 of 100."""
    why: str
    """One sentence: what was measured, with its numbers; or why nobody knows."""
    origin: str
    """The method, a fixed name without numbers: past scorecards are looked up by it."""
    calibration: Mapping[str, float] = field(default_factory=dict)
    """How past scorecards changed the intervals: {"n": cases, "factor80": .., "factor95": ..}; empty: they did not."""

    def to_json(self) -> dict[str, Any]:
        """As one entry of plan.json; what is not known is left out."""
        return {k: v for k, v in asdict(self).items() if v is not None and v != {}}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Prediction:
        """Back from plan.json; TypeError for what is not a prediction."""
        nothing: dict[str, Any] = dict.fromkeys(("value", "low80", "high80", "low95", "high95"))
        return cls(**nothing | dict(entry))

    @property
    def is_known(self) -> bool:
        """Whether it says a number."""
        return self.value is not None

    def ends(self, level: int) -> tuple[float, float]:
        """(low, high) of the 80 or 95% interval of a known prediction."""
        low, high = (self.low80, self.high80) if level == 80 else (self.low95, self.high95)
        if low is None or high is None:
            raise ValueError(f"{self.name} has no interval")
        return low, high

    def holds(self, outcome: float, level: int) -> bool:
        """Whether the outcome lies in the interval (both ends belong to it)."""
        low, high = self.ends(level)
        return low <= outcome <= high

    def miss(self, outcome: float, level: int) -> float:
        """The error in half-widths of the interval, on the side it lies on: 1 is its end, negative is too high a
        prediction. Logarithmic where all bounds are positive. Infinite when an interval of no width is missed."""
        scale = self.scale
        at, value = scale(outcome), scale(self.value or 0.0)
        low, high = map(scale, self.ends(level))
        half = high - value if at >= value else value - low
        return (at - value) / half if half > 0 else 0.0 if at == value else math.copysign(math.inf, at - value)

    def scale(self, x: float) -> float:
        """log x where every bound is positive, x itself elsewhere. An outcome that has no logarithm is infinitely low."""
        if not self.is_logarithmic:
            return x
        return math.log(x) if x > 0 else -math.inf

    @property
    def is_logarithmic(self) -> bool:
        """Whether value and bounds are all positive, so that errors are factors."""
        bounds = (self.value, self.low80, self.low95)
        return all(b is not None and b > 0 for b in bounds)

    def widened(self, factor80: float, factor95: float, n_cases: int) -> Prediction:
        """The same value with each half of its intervals so many times as wide, on its own scale; the 95% interval never
        ends inside the 80% one. `n_cases` past cases were looked at."""
        if self.value is None:
            return self
        back = math.exp if self.is_logarithmic else float
        at, (low80, high80), (low95, high95) = self.scale(self.value), self.ends(80), self.ends(95)
        halves = [(at - self.scale(low80), at - self.scale(low95)), (self.scale(high80) - at, self.scale(high95) - at)]
        factor95 = max([factor95, *(factor80 * inner / outer for inner, outer in halves if outer > 0)])
        (down80, down95), (up80, up95) = [(factor80 * inner, factor95 * outer) for inner, outer in halves]
        return replace(
            self, low80=back(at - down80), high80=back(at + up80), low95=back(at - down95), high95=back(at + up95),
            calibration={"n": n_cases, "factor80": factor80, "factor95": factor95},
        )  # fmt: skip

    def as_stated(self) -> Prediction:
        """As its method made it, before past scorecards changed the intervals."""
        if not self.calibration:
            return self
        undone = self.widened(1 / self.calibration["factor80"], 1 / self.calibration["factor95"], 0)
        return replace(undone, calibration={})


def predict(
    name: str,
    value: float,
    unit: str,
    why: str,
    origin: str,
    *,
    sd: float | None = None,
    factor: float | None = None,
) -> Prediction:
    """A prediction with central 80 and 95% intervals, from one standard deviation of its error: value +- z sd for a normal
    error, or value * factor^(+-z) for a log-normal one, with z = 1.2816 and 1.9600. sd = 0 says that it is certain."""
    if (sd is None) == (factor is None):
        raise ValueError(f"{name}: give either sd or factor")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}: use unknown() for what is not known")
    if factor is not None:
        if factor < 1 or value <= 0:
            raise ValueError(f"{name}: a factor must be at least 1 and its value positive, got {factor} and {value}")
        ends = [value * factor**z for z in (-Z80, Z80, -Z95, Z95)]
    else:
        ends = [value + z * (sd or 0.0) for z in (-Z80, Z80, -Z95, Z95)]
    low80, high80, low95, high95 = ends
    return Prediction(name, value, unit, low80, high80, low95, high95, why, origin)


def unknown(name: str, unit: str, why: str, origin: str = "don't know") -> Prediction:
    """The legal answer where nothing was measured, or outside the measured range."""
    return Prediction(name, None, unit, None, None, None, None, why=why, origin=origin)
